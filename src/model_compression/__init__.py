"""Knowledge distillation: a small student learns from a teacher, with evidence.

The names below are imported when they are first used, so that `import model_compression` and the command line's help
never load torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from model_compression._version import __version__

if TYPE_CHECKING:
    from model_compression.api.compression import compress, prune, quantize
    from model_compression.api.embedding import embed
    from model_compression.api.evaluation import evaluate
    from model_compression.api.examination import doctor
    from model_compression.api.experiments import compare_methods, report, reproduce
    from model_compression.api.exporting import export, verify
    from model_compression.api.measuring import measure
    from model_compression.api.prediction import predict
    from model_compression.api.searching import search
    from model_compression.api.sharing import pack, push
    from model_compression.api.training import distill, resume, train
    from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
    from model_compression.core.data_config import DataConfig
    from model_compression.core.errors import Interrupted, ModelCompressionError
    from model_compression.core.optim_config import OptimConfig
    from model_compression.core.outputs import Outputs
    from model_compression.data.cifar import load_cifar10
    from model_compression.distillation.methods import create as create_method
    from model_compression.engine.runs import resume_run, start_run
    from model_compression.experiments.schemes import SchemeConfig, resume_scheme, run_scheme
    from model_compression.models import create_model
    from model_compression.models.features import Tapped
    from model_compression.models.loading import load_model

_HOMES = {
    "DataConfig": "core.data_config",
    "Interrupted": "core.errors",
    "MethodConfig": "core.config",
    "ModelCompressionError": "core.errors",
    "ModelConfig": "core.config",
    "OptimConfig": "core.optim_config",
    "Outputs": "core.outputs",
    "SchemeConfig": "experiments.schemes",
    "Tapped": "models.features",
    "TrainConfig": "core.config",
    "compare_methods": "api.experiments",
    "compress": "api.compression",
    "create_method": "distillation.methods:create",
    "create_model": "models",
    "distill": "api.training",
    "doctor": "api.examination",
    "embed": "api.embedding",
    "evaluate": "api.evaluation",
    "export": "api.exporting",
    "load_cifar10": "data.cifar",
    "load_model": "models.loading",
    "measure": "api.measuring",
    "pack": "api.sharing",
    "predict": "api.prediction",
    "prune": "api.compression",
    "push": "api.sharing",
    "quantize": "api.compression",
    "report": "api.experiments",
    "reproduce": "api.experiments",
    "resume": "api.training",
    "resume_run": "engine.runs",
    "resume_scheme": "experiments.schemes",
    "run_scheme": "experiments.schemes",
    "search": "api.searching",
    "start_run": "engine.runs",
    "train": "api.training",
    "verify": "api.exporting",
}

__all__ = [
    "DataConfig",
    "Interrupted",
    "MethodConfig",
    "ModelCompressionError",
    "ModelConfig",
    "OptimConfig",
    "Outputs",
    "SchemeConfig",
    "Tapped",
    "TrainConfig",
    "__version__",
    "compare_methods",
    "compress",
    "create_method",
    "create_model",
    "distill",
    "doctor",
    "embed",
    "evaluate",
    "export",
    "load_cifar10",
    "load_model",
    "measure",
    "pack",
    "predict",
    "prune",
    "push",
    "quantize",
    "report",
    "reproduce",
    "resume",
    "resume_run",
    "resume_scheme",
    "run_scheme",
    "search",
    "start_run",
    "train",
    "verify",
]


def __dir__() -> list[str]:
    return [*globals(), *(name for name in __all__ if name not in globals())]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'model_compression' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(f"model_compression.{module}"), attribute or name)
