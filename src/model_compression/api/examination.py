"""`doctor`: what is wrong with machine, data, teacher and loss, before hours go into a run."""

from dataclasses import dataclass
from pathlib import Path

from model_compression.api.inputs import give_names
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import MethodConfig, ModelConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.files import user_path
from model_compression.core.finding import Finding
from model_compression.core.trust import all_files
from model_compression.diagnosis.whole import examine
from model_compression.engine.default_recipe import usual_method


@dataclass(frozen=True, kw_only=True, repr=False)
class Examination:
    """What was found, each a line with its remedy."""

    findings: tuple[Finding, ...]

    @property
    def failed(self) -> bool:
        """Whether something is wrong that a run should not begin with."""
        return any(finding.level == "fail" for finding in self.findings)

    def __repr__(self) -> str:
        return "\n".join(f"{one.level:>5} {one.subject:<13} {one.line}" for one in self.findings)


@checked_arguments
def doctor(
    *,
    teacher: str | Path | ModelConfig | None = None,
    student: str | Path | ModelConfig | None = None,
    data: str | DataConfig | None = None,
    method: str | MethodConfig | None = None,
    device: str = "auto",
    runs: str | Path = "runs",
    trust: bool = False,
) -> Examination:
    """Looks at machine, data, teacher and loss, and says what to do.

    Example:
        >>> found = mc.doctor(teacher="runs/labels", student="lenet", data="synthetic")
        >>> sorted({one.area for one in found.findings})
        ['data', 'loss', 'machine', 'teacher']

    Args:
        teacher: a network with weights, as `distill` takes it by name.
        student: a network's name; adds a check of its loss at the first step.
        data: a dataset's name; with a network CIFAR-10 by default.
        method: whose terms are looked at. None: that of `distill`.
        device: "auto", "cpu", "cuda" or "mps".
        runs: the folder for runs; its disk is checked.
        trust: whether code that a stranger's file names is imported.
    """
    give_names(teacher, student, data, method)
    networks = {
        role: ModelConfig(name=str(one)) if isinstance(one, str | Path) else one
        for role, one in (("teacher", teacher), ("student", student))
    }
    if data is None and any(networks.values()):
        data = DataConfig()
    data = DataConfig(name=data) if isinstance(data, str) else data
    name = usual_method(data or DataConfig()) if method is None else method
    method = MethodConfig(name=name) if isinstance(name, str) else name
    with all_files(trust):
        findings = examine(
            **networks,
            data=data,
            method=method,
            device=device,
            runs=user_path(str(runs)),
            report=lambda line: None,
        )
        return Examination(findings=tuple(findings))
