"""What a student learns from: methods, teachers, and the layers that are compared."""
