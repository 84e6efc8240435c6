"""One run: its data, networks and teacher, its loop, its folder, and how it resumes."""
