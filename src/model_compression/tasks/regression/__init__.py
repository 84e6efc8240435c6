"""Samples with real numbers, which have units."""
