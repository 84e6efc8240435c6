"""Datasets with targets and a digest of their content, and their augmented batches. Importing this loads no torch."""
