"""What a network answers, and how its answers are judged."""
