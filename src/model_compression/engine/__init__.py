"""One run: its networks and teacher, its loop, its folder, and how it goes on after an interruption."""
