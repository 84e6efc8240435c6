"""Runs that belong together: comparisons, recipes and schemes."""
