"""What a student learns from: methods, teachers, and the step that owns student and method."""
