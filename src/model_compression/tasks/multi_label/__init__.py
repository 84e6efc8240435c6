"""Samples with any number of classes each."""
