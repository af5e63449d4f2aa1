"""One file a step. They say what was, not what is: none imports `tables`."""
