"""What is measured while Corral works: metrics, usage, health."""
