"""A class for each word of a text."""
