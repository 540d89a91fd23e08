"""Benchmarks: `python -m benchmarks [--quick] [--out FILE]`. Peers stand beside us in the same run."""
