"""What the runs of a process share: data, teacher and what was found out about them, each built once."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from model_compression.checks.data import examine_data
from model_compression.checks.networks import check_teachers_answers
from model_compression.checks.teacher import examine_before_run
from model_compression.core import processes
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import to_dict
from model_compression.core.data_config import DataConfig
from model_compression.core.finding import Finding
from model_compression.core.options import answer_settings
from model_compression.data.batches import to_tensors
from model_compression.data.dataset import Dataset
from model_compression.data.hold_out import hold_out
from model_compression.data.on_demand import OnDemandImages
from model_compression.data.streaming import loader_for
from model_compression.data.task_views import as_task
from model_compression.distillation.taps import Taps
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.engine.fitting import fitted_run
from model_compression.engine.networks import given_network, load_teachers
from model_compression.engine.observer import Observer
from model_compression.engine.teachers import answers_fit, cached_teacher, data_of_teacher, load_data, num_views
from model_compression.models.base import Network
from model_compression.models.copies import place

T = TypeVar("T")
Report = Callable[[str], None]

_BATCH = 500
_OF_TEACHERS = ("live", "tried", "answers", "teacher findings")  # what is built from the networks


class Parts:
    """Data and teacher of one or several runs; each is loaded when it is first asked for, and kept for the next run.

    ``student``, ``teacher`` and ``data`` are objects that replace what a configuration names. Only the last data and
    the last teacher are kept: runs in turn, each taught by the one before, need no more memory than one.
    """

    def __init__(
        self,
        *,
        student: nn.Module | None = None,
        teacher: nn.Module | None = None,
        data: tuple[Dataset, Dataset] | None = None,
    ):
        self.student, self.teacher, self.data = student, teacher, data
        self._kept: dict[str, tuple[Any, Any]] = {}

    def load_data(self, run: TrainConfig, report: Report) -> tuple[Dataset, Dataset]:
        """(training set, test set): those that were given, else those that the ``run`` names."""
        if self.data is not None:
            given = self.data
            return self._once("data", (given, run.data.task), lambda: as_task(given, run.data.task))
        config, networks = fitted_run(run).data, names_of_networks(run.student, run.teacher)
        source = (config.plain, config.unlabelled, config.resident, config.workers, config.crops)
        kept = self._kept.get("data")
        if kept is not None and kept[0][0] == source and kept[1][0].holds_images:  # which no tokenizer cuts
            images: tuple[Dataset, Dataset] = kept[1]
            return images
        return self._once("data", (source, networks), lambda: load_data(config, report, networks))

    def hold_out(self, train: Dataset, count: int, called: str = "validation") -> tuple[Dataset, Dataset]:
        """(training set, another set) of ``count`` samples, the same for every run; ``called`` says what it is for."""
        return self._once(f"held out for {called}", (train, count), lambda: hold_out(train, count, 0, called))

    def read_all(self, dataset: Dataset) -> None:
        """Raises DataError for an image that cannot be decoded, and what a DataLoader's batches are refused for."""

        def read() -> None:
            loader = loader_for(dataset, DataConfig(name=dataset.name), torch.device("cpu"))
            for _ in loader.in_order(view=0, batch_size=_BATCH):
                pass

        if not isinstance(dataset.samples, np.ndarray):
            self._once("read", dataset, read)

    def load_teachers(self, config: ModelConfig | None, train: Dataset) -> list[Network]:
        """The networks that were given or that ``config`` names, on the CPU; none where neither does."""
        if self.teacher is None and config is None:
            return []

        def build() -> list[Network]:
            if self.teacher is not None:
                return [given_network(self.teacher, train, 0, config)]
            assert config is not None
            return load_teachers(config, train)

        networks = self._once("teachers", (self.teacher, config and to_dict(config), train), build, _OF_TEACHERS)
        return [network.cpu() for network in networks]  # from where the run before had put them

    def live_teacher(
        self, networks: list[Network], config: TrainConfig, taps: Taps, device: torch.device, precision: torch.dtype,
        train: Dataset, report: Report,
    ) -> LiveTeacher:  # fmt: skip
        """What answers with the networks of `load_teachers`, tried on images of ``train``.

        Raises UsageError when it answers at random, unless ``config`` allows that.
        """
        options = (taps.teacher, taps.embedding, config.teacher_tta, config.teacher_answers, device)
        before = self._kept.get("live")
        if before is not None and before[0] != (*networks, *options):
            before[1].release()

        def build() -> LiveTeacher:
            return LiveTeacher(
                networks, device, precision, config.teacher_tta,
                features=taps.teacher, embedding=taps.embedding, answers=config.teacher_answers,
            )  # fmt: skip

        live = self._once("live", (*networks, *options), build)
        for network in networks:
            place(network, device)

        def tried() -> list[str]:
            lines: list[str] = []
            live.choose_precision(precision, to_tensors(train.first(2)), lines.append)
            check_teachers_answers(config, live, train, lines.append)
            return lines

        for line in self._once("tried", (live, precision, config.allow_weak_teacher, train), tried):
            report(line)
        return live

    def stored_answers(
        self, config: TrainConfig, live: LiveTeacher, train: Dataset, observer: Observer
    ) -> CachedTeacher | None:
        """What stores the answers of ``live``, and has read those of earlier runs; None where they are too many."""
        if not processes.same(answers_fit(config, live, train, observer.message)):
            return None
        of_config = (data_of_teacher(config), answer_settings(config, "teacher"), config.teacher_cache)
        key = (live, *live.precisions, train, config.teacher_cache_dtype, *of_config)
        progress = observer.teacher_answered, observer.message
        stored = self._once("answers", key, lambda: cached_teacher(config, live, train, *progress))
        stored.check_writable(num_views(config))
        return stored

    def examine(self, train: Dataset, test: Dataset, teachers: list[Network], device: torch.device) -> list[Finding]:
        """What is cheap to see of data and teachers; images that are still to be decoded are not compared."""
        reads_all = not isinstance(train.samples, OnDemandImages)
        of_data = self._once(
            "data findings", (train, test), lambda: list(examine_data(train, test, reads_all=reads_all))
        )

        def of_each() -> list[Finding]:
            return [finding for teacher in teachers for finding in examine_before_run(teacher, train, device)]

        return of_data + self._once("teacher findings", (*teachers, train, device), of_each)

    def _once(self, what: str, key: Any, build: Callable[[], T], outdated: Sequence[str] = ()) -> T:
        """What ``build`` gave when ``what`` was last asked for with this ``key``, else what it gives now.

        In that case what was built for the ``outdated`` is forgotten, before the new one takes memory as well.
        """
        found = self._kept.get(what)
        if found is None or found[0] != key:
            for name in (what, *outdated):
                self._kept.pop(name, None)
            found = self._kept[what] = key, build()
        value: T = found[1]
        return value


def names_of_networks(student: ModelConfig | None, teacher: ModelConfig | None) -> tuple[str, ...]:
    """Where the tokenizer of texts is looked for: beside the teachers, then beside what the student is made of."""
    teachers = teacher.name.split(",") if teacher else []
    if student is None:
        return (*teachers,)
    body = student.options.get("body")
    return (*teachers, student.name, *([body] if isinstance(body, str) else []))
