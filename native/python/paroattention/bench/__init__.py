"""Benchmarks: `python -m paroattention bench attention|fidelity`."""
