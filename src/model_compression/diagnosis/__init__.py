"""What `model-compression doctor` looks at: the machine, and the loss at first."""
