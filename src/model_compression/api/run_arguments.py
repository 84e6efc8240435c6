"""The arguments that `train` and `distill` share, with a check of their types."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from model_compression.core.argument_checks import plain_number
from model_compression.core.config import MethodConfig, TrainConfig
from model_compression.core.errors import UsageError
from model_compression.engine.observer import Observer, Silent

# argument → (the types it may have, how an error calls them)
_TYPES: dict[str, tuple[Any, str]] = {
    "method": (str | MethodConfig | None, "a name, as 'kd', or a MethodConfig"),
    "params": (dict | None, "a dictionary of the method's parameters, as {'temperature': 2.0}"),
    "epochs": (int, "an integer"),
    "seed": (int, "an integer"),
    "run_dir": (str | Path | None, "the path of a folder"),
    "resume": (bool, "True or False"),
    "progress": (bool | None, "True, False or None"),
    "config": (TrainConfig | None, "a TrainConfig"),
}


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """What `argument_texts` says. Raises UsageError for an argument of a type that it cannot have."""

    epochs: int
    seed: int
    run_dir: str | Path | None
    resume: bool
    config: TrainConfig | None
    observer: Observer | None
    progress: bool | None
    trust: bool
    strict: bool
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        for name in ("epochs", "seed"):
            object.__setattr__(self, name, plain_number(getattr(self, name)))
        check_types(**{one.name: getattr(self, one.name) for one in fields(self) if one.name in _TYPES})
        missing = [
            name
            for name in vars(Silent)
            if not name.startswith("_") and not callable(getattr(self.observer, name, None))
        ]
        if self.observer is not None and missing:
            raise UsageError(
                f"observer must have the methods of engine.observer.Observer; a {type(self.observer).__name__} lacks "
                f"{', '.join(missing)}"
            )
        if self.resume and self.run_dir is None:
            raise UsageError("resume needs the run_dir of the run that is to go on")
        for name, ours in (("out", "run_dir"), ("pairs", "method=MethodConfig(name=..., pairs=...)")):
            if name in self.settings:
                raise UsageError(f"{name} is an option of the command line; here it is {ours}")


def check_types(**arguments: Any) -> None:
    """Raises UsageError for an argument of a type that it cannot have."""
    for name, value in arguments.items():
        kinds, wanted = _TYPES[name]
        if not isinstance(value, kinds) or (kinds is int and isinstance(value, bool)):
            raise UsageError(f"{name} must be {wanted}, got {value!r}")
        if name == "params" and not all(isinstance(key, str) for key in value or ()):
            raise UsageError(f"the names in params must be texts, got {value!r}")
