"""Values and ports: what Corral talks about. No I/O, no loop, no clock of its own."""
