"""What answers for the teacher: the network itself, or its stored answers."""
