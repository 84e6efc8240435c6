"""What is wrong with data, networks or a teacher, as far as it is seen before the first step of a run."""
