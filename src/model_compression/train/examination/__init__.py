"""What `model-compression doctor` looks at, before hours go into a run: machine, data, teacher and loss."""
