"""What is wrong with data, networks or a teacher, as far as it shows before the first step."""
