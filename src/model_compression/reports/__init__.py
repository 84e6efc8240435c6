"""Tables and plots from run folders and records; never imports torch."""
