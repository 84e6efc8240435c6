"""Datasets as uint8 arrays with labels and a digest; nothing here imports torch, and importing it loads nothing."""
