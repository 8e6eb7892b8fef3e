"""Our fixed-point solvers against TorchDEQ and SciPy, at the same true residual: ``python -m benchmarks``."""
