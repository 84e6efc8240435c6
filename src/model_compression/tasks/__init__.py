"""What a network answers, and how its answers are judged: one task a folder, created by name."""

from model_compression.tasks.base import TASKS, Changes, Rows, Task, dense_rows, task_of
from model_compression.tasks.embedding.task import Embedding as Embedding  # which registers itself
from model_compression.tasks.image_classification import task as task  # which registers itself
from model_compression.tasks.multi_label import task as multi_label
from model_compression.tasks.regression import task as regression
from model_compression.tasks.segmentation import task as segmentation
from model_compression.tasks.text_classification import task as text_task
from model_compression.tasks.token_classification import task as token_task

__all__ = [
    "TASKS",
    "Changes",
    "Rows",
    "Task",
    "dense_rows",
    "multi_label",
    "regression",
    "segmentation",
    "task_of",
    "text_task",
    "token_task",
]
