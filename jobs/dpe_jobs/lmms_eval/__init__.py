"""Public benchmarks that lmms-eval asks of the served model: run it, keep what it wrote, compare two models."""
