"""What `model-compression doctor` looks at beside the checks of every run: the machine, and the loss at first."""
