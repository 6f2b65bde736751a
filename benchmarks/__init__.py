"""Benchmarks: each module is a program, `python -m benchmarks.NAME`, and writes into `benchmarks/results/`."""
