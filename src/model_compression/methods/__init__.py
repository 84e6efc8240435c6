"""Distillation methods, one per file, created by name."""

from model_compression.methods.base import METHODS, Context, Method
from model_compression.methods.combined import create
from model_compression.methods.logit import kd, logits, noisy_teacher

__all__ = ["METHODS", "Context", "Method", "create", "kd", "logits", "noisy_teacher"]
