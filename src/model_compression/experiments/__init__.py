"""Runs that belong together: comparisons, recipes, schemes; each run in a process of its own where that is needed."""
