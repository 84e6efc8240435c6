"""Distillation methods, one per file, created by name. A file in one of the folders is found by itself."""

import importlib
import pkgutil

from model_compression.distillation.methods import embedding, feature, logit, relation
from model_compression.distillation.methods.base import METHODS, Context, Method
from model_compression.distillation.methods.combined import create

for _family in (logit, feature, relation, embedding):
    for _module in pkgutil.iter_modules(_family.__path__, f"{_family.__name__}."):
        importlib.import_module(_module.name)

__all__ = ["METHODS", "Context", "Method", "create"]
