"""The public functions of the package, one file each; `import model_compression` gives them by name."""
