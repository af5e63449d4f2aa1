"""The parts of the runtime `llamacpp`."""
