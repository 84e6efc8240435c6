"""Smaller and faster networks: pruned, quantised, measured."""
