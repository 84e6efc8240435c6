"""Smaller and faster networks: stages that prune, quantise, measure and ship."""
