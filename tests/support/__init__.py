"""What tests of several rungs share."""
