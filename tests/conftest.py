"""What all tests share: the user's cache of teacher answers stays out of reach, and tiny networks train in moments."""

import itertools
import os
import signal
from collections import OrderedDict
from types import SimpleNamespace
from weakref import WeakKeyDictionary

import numpy as np
import pytest

_TESTS = itertools.count()


def pytest_configure(config):
    """Parallel workers, and the processes that their tests start, compute with one thread each.

    Signals that nohup, or a shell that starts the tests in the background, has ignored are heard: tests send them.
    """
    for name, handler in (("SIGHUP", signal.SIG_DFL), ("SIGINT", signal.default_int_handler)):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_runtest_setup(item):
    """Skips what the installed torch is too old for."""
    for marker in item.iter_markers("torch"):
        from importlib.metadata import version

        (needed,) = marker.args
        if tuple(map(int, version("torch").split(".")[:2])) < tuple(map(int, needed.split("."))):
            pytest.skip(f"needs torch {needed}")


@pytest.fixture(scope="session", autouse=True)
def _not_the_users_cache(tmp_path_factory):
    """For fixtures that many tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_COMPRESSION_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Each test finds no teacher answers but its own, and trusts no file but those that it wrote itself."""
    from model_compression.core import trust

    number = next(_TESTS)
    folder = tmp_path_factory.getbasetemp() / f"cache-{number}"  # made by the one who writes there
    monkeypatch.setenv("MODEL_COMPRESSION_CACHE", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state-{number}"))
    monkeypatch.setattr(trust, "_state", trust._State())


class Watcher:
    """An observer of a run that keeps what it sees and, after the steps in ``stop_after``, signals this process."""

    def __init__(self, stop_after=(), number=signal.SIGTERM):
        self.stop_after, self.number = stop_after, number
        self.steps, self.events, self.messages, self.answered = [], [], [], []
        self.trainer = None

    def started(self, trainer, eval_set):
        self.trainer, self.eval_set = trainer, eval_set

    def stepped(self, progress):
        self.steps.append(progress.step)
        if progress.step in self.stop_after:
            os.kill(os.getpid(), self.number)

    def epoch_done(self, event):
        self.events.append(event)

    def teacher_answered(self, done, total):
        self.answered.append((done, total))

    def message(self, text):
        self.messages.append(text)


@pytest.fixture(scope="session")
def watcher():
    """The class of observers that keep what they see."""
    return Watcher


def tiny_data(data_dir=None, report=None, allow_download=True):
    from model_compression.data.dataset import Dataset

    rng = np.random.default_rng(5)
    return tuple(
        Dataset(
            name=name,
            samples=rng.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8),
            labels=np.arange(count, dtype=np.int64) % 3,
            class_names=("a", "b", "c"),
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
        )
        for name, count in (("tiny", 22), ("tiny-test", 13))
    )


def tiny_student(num_classes=3, dropout=0.3):
    from torch import nn

    from model_compression.models.base import Network

    return Network(
        OrderedDict(
            conv1=nn.Conv2d(3, 4, 3, bias=False),
            bn1=nn.BatchNorm2d(4),
            relu1=nn.ReLU(),
            drop1=nn.Dropout(dropout),
            flatten=nn.Flatten(),
            ip1=nn.Linear(144, num_classes),
        )
    )


def tiny_teacher(num_classes=3):
    from torch import nn

    from model_compression.models.base import Network

    return Network(
        OrderedDict(conv1=nn.Conv2d(3, 5, 5), pool=nn.MaxPool2d(4), flatten=nn.Flatten(), ip1=nn.Linear(5, num_classes))
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Dataset "tiny" (22 and 13 images of 3 × 8 × 8, 3 classes) and the networks "tiny" and "tiny-teacher".

    ``data`` makes the sets, ``teacher`` is a weights file, ``config`` makes a TrainConfig of 3 epochs of 5 steps.
    """
    from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
    from model_compression.core.data_config import DataConfig
    from model_compression.core.optim_config import OptimConfig
    from model_compression.data.sources import DATASETS
    from model_compression.models.base import MODELS
    from model_compression.models.create import create_model
    from model_compression.models.weights import save_weights

    def config(method=None, *, data=(), optim=(), **options):
        teacher = ModelConfig(name=str(file)) if method else None
        method = MethodConfig(name=method) if isinstance(method, str) else method
        shift = {"shift": 2} if dict(data).get("augmentation") == "flip_shift" else {}
        settings = {"epochs": 3, "batch_size": 5, "precision": "fp32", "device": "cpu", **options}
        return TrainConfig(
            student=settings.pop("student", ModelConfig(name="tiny")),
            teacher=teacher,
            method=method,
            data=DataConfig(**{"name": "tiny", **shift, **dict(data)}),
            optim=OptimConfig(**dict(optim)),
            **settings,
        )

    file = tmp_path_factory.mktemp("tiny") / "teacher.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS._entries, "tiny", tiny_student)
        patch.setitem(MODELS._entries, "tiny-teacher", tiny_teacher)
        patch.setitem(DATASETS._entries, "tiny", tiny_data)
        save_weights(file, create_model("tiny-teacher", seed=7))
        yield SimpleNamespace(data=tiny_data, teacher=file, config=config)


@pytest.fixture
def uploads(monkeypatch):
    """Names of the datasets whose images are copied to a device, in turn."""
    from model_compression.data import loader

    names, upload = [], loader.upload
    monkeypatch.setattr(loader, "_COPIES", WeakKeyDictionary())  # none of tests before
    monkeypatch.setattr(loader, "upload", lambda dataset, device: names.append(dataset.name) or upload(dataset, device))
    return names
