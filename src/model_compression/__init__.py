"""Knowledge distillation: a small student learns from a teacher, with evidence."""

from model_compression._version import __version__

__all__ = ["__version__"]
