"""What one machine with a GPU tells in a few minutes, without a network: ``python -m benchmarks.gpu``."""
