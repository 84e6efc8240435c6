"""Smaller and faster networks, and how much smaller and faster they are."""
