"""What a network answers, and how its answers are judged: one task a folder, created by name."""

from model_compression.tasks.base import TASKS, Changes, Rows, Task, task_of
from model_compression.tasks.image_classification import task as task  # which registers itself

__all__ = ["TASKS", "Changes", "Rows", "Task", "task_of"]
