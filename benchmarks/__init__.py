"""Benchmarks: scripts, not part of the package. `make bench` runs them and writes results/benchmarks/."""
