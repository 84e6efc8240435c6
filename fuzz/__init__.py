"""Fuzzing of what reads files from strangers: python -m fuzz TARGET [--seconds 60]."""
