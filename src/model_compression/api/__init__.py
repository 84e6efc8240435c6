"""The public functions: `import model_compression as mc` gives them by name, and the commands call them."""
