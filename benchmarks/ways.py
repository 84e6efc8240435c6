"""The ways to distil that are compared. Each is made ready once, and runs for a number of seconds as often as asked.

historic       float32, NCHW, a DataLoader with transforms an image, a teacher asked in each step: 2016, in PyTorch
torchdistill   the same job by torchdistill, set up as its CIFAR-10 examples are
torchdistill_bf16   the same, with bfloat16 autocast and channels-last wrapped around it by hand
live, cached   this package, the teacher answering in every step or from its stored answers
bare           a loop of forward, loss, backward and step over one batch that stays where it is: no data, no teacher
peak           a product of two large matrices at the same precision
"""

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression import create_model, load_cifar10, load_model
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.device import choose_device, choose_precision, keep_freed_memory
from model_compression.core.optim_config import OptimConfig
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.engine.runtime import Runtime
from model_compression.engine.teachers import cached_teacher
from model_compression.engine.trainer import Trainer
from model_compression.models.copies import place
from model_compression.models.preprocessing import CIFAR10_MEAN, CIFAR10_STD

TEMPERATURE, LABEL_WEIGHT = 4.0, 0.9  # of torchdistill's example; ours computes the same sum


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every way does: the pair, the batch, the device, the precision of the fast ways, and how data is loaded."""

    student: str = "lenet"
    teacher: str = "nin-cifar10"
    batch_size: int = 256
    device: str = "auto"
    precision: str = "auto"
    workers: int = 2


Run = Callable[[float], tuple[int, float]]  # seconds → images, seconds that they took


def ready(way: str, job: Job) -> tuple[Run, dict[str, Any]]:
    """The way, ready to run, and what is to be said of it."""
    makers: dict[str, Callable[[Job], tuple[Run, dict[str, Any]]]] = {
        "historic": _historic,
        "torchdistill": lambda job: _torchdistill(job, fast=False),
        "torchdistill_bf16": lambda job: _torchdistill(job, fast=True),
        "live": lambda job: _ours(job, cached=False),
        "cached": lambda job: _ours(job, cached=True),
        "bare": _bare,
        "peak": _peak,
    }
    return makers[way](job)


def _timed(step: Callable[[], int], device: torch.device, warm: int = 4) -> Run:
    """``step`` over and over; the first few, which may find batches that waited for them, are not counted."""

    def run(seconds: float) -> tuple[int, float]:
        for _ in range(warm):
            step()
        _wait_for(device)
        begun, images = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            images += step()
        _wait_for(device)
        return images, time.perf_counter() - begun

    return run


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _loader(job: Job, wrapped: bool) -> Any:
    """Batches of augmented float images as torchvision's transforms make them, one image at a time."""
    from PIL import Image
    from torchvision import transforms

    train, _ = load_cifar10()
    pipeline = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(CIFAR10_MEAN, CIFAR10_STD),
        ]
    )
    pixels, labels = train.images.transpose(0, 2, 3, 1), train.labels.tolist()

    class Images(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, index: int) -> Any:
            return pipeline(Image.fromarray(pixels[index])), labels[index]

    if wrapped:
        return Images()
    return torch.utils.data.DataLoader(Images(), batch_size=job.batch_size, shuffle=True, num_workers=job.workers)


def _forever(loader: Any) -> Iterator[Any]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


def _historic(job: Job) -> tuple[Run, dict[str, Any]]:
    device = choose_device(job.device)
    student, teacher = create_model(job.student, seed=0).to(device), load_model(job.teacher).to(device).eval()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    batches = _forever(_loader(job, wrapped=False))

    def step() -> int:
        images, targets = (part.to(device) for part in next(batches))
        with torch.no_grad():
            answers = teacher(images)
        _distillation_step(student, optimizer, images, answers, targets)
        return len(targets)

    return _timed(step, device), {"precision": "float32"}


def _distillation_step(student: Any, optimizer: Any, images: Tensor, answers: Tensor, targets: Tensor) -> None:
    logits = student(images).float()
    soft = F.kl_div(
        F.log_softmax(logits / TEMPERATURE, dim=1), F.softmax(answers / TEMPERATURE, dim=1), reduction="batchmean"
    )
    loss = LABEL_WEIGHT * F.cross_entropy(logits, targets) + (1 - LABEL_WEIGHT) * TEMPERATURE**2 * soft
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _torchdistill(job: Job, *, fast: bool) -> tuple[Run, dict[str, Any]]:
    dataset = _loader(job, wrapped=True)  # first: torchdistill imports torchvision, which this makes importable
    from torchdistill.core.distillation import get_distillation_box

    device = choose_device(job.device)
    student, teacher = create_model(job.student, seed=0), load_model(job.teacher)
    if fast:
        student, teacher = place(student, device), place(teacher, device)
    data_loader = {
        "dataset_id": "cifar10/train",
        "sampler": {"class_or_func": torch.utils.data.RandomSampler, "kwargs": {}},
        "kwargs": {"batch_size": job.batch_size, "num_workers": job.workers},
    }
    criterion = {
        "key": "WeightedSumLoss",
        "kwargs": {
            "sub_terms": {
                "kd": {
                    "criterion": {
                        "key": "KDLoss",
                        "kwargs": {
                            "student_module_path": ".",
                            "student_module_io": "output",
                            "teacher_module_path": ".",
                            "teacher_module_io": "output",
                            "temperature": TEMPERATURE,
                            "alpha": LABEL_WEIGHT,
                            "reduction": "batchmean",
                        },
                    },
                    "weight": 1.0,
                }
            }
        },
    }
    config = {
        "num_epochs": 1,
        "train_data_loader": data_loader,
        "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {"key": "Adam", "kwargs": {"lr": 1e-3}},
        "criterion": criterion,
    }
    box = get_distillation_box(teacher, student, {"cifar10/train": dataset}, config, device, None, False, 1)
    box.pre_epoch_process(epoch=0)
    batches = _forever(box.train_data_loader)

    def step() -> int:
        images, targets, extra = next(batches)
        images, targets = images.to(device), targets.to(device)
        if fast:
            images = images.to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16) if fast else contextlib.nullcontext():
            loss = box.forward_process(images, targets, extra)
        box.post_forward_process(loss=loss)
        loss.item()  # as its example does for its log
        return len(targets)

    return _timed(step, device), {"precision": "bfloat16" if fast else "float32"}


class _TimeIsUp(Exception):
    pass


def _ours(job: Job, *, cached: bool) -> tuple[Run, dict[str, Any]]:
    config = TrainConfig(
        student=ModelConfig(name=job.student),
        teacher=ModelConfig(name=job.teacher),
        method=MethodConfig(name="kd", params={"temperature": TEMPERATURE}, weights={"kd": 0.1}, label_weight=0.9),
        data=DataConfig(augmentation="flip_shift", views=1),
        optim=OptimConfig(),
        batch_size=job.batch_size,
        epochs=10_000,
        precision=job.precision,  # type: ignore[arg-type]
        teacher_cache=tempfile.mkdtemp() if cached else "off",
        compile="off",
    )
    device = choose_device(job.device)
    keep_freed_memory(device)
    precision = choose_precision(job.precision, device)
    train, _ = load_cifar10()
    live = LiveTeacher([load_model(job.teacher)], device, precision)
    begun = time.perf_counter()
    teacher: Any = cached_teacher(config, live, train, lambda done, total: None, print) if cached else live
    facts: dict[str, Any] = {"precision": str(precision).removeprefix("torch.")}
    if cached:
        teacher.view(0)
        facts |= {"fill_seconds": time.perf_counter() - begun, "cache_bytes": teacher.store.size_bytes()}
    trainer = Trainer(
        config, create_model(job.student, seed=0), teacher, train, Runtime(device=device, precision=precision)
    )
    observer = ConsoleObserver()
    observer.started(trainer, "test")

    def run(seconds: float) -> tuple[int, float]:
        warm, begun, images = trainer.step + 4, 0.0, 0

        def watch(progress: Any) -> None:
            nonlocal begun, images
            observer.stepped(progress)
            if trainer.step == warm:
                _wait_for(device)
                begun, images = time.perf_counter(), 0
            elif trainer.step > warm:
                last = trainer.step % trainer.steps_per_epoch == 0
                images += len(trainer.loader) % job.batch_size or job.batch_size if last else job.batch_size
                if time.perf_counter() - begun >= seconds:
                    raise _TimeIsUp

        with contextlib.suppress(_TimeIsUp):
            while True:
                trainer.run_epoch(watch)
        _wait_for(device)
        return images, time.perf_counter() - begun

    return run, facts


def _bare(job: Job) -> tuple[Run, dict[str, Any]]:
    device = choose_device(job.device)
    keep_freed_memory(device)
    precision = choose_precision(job.precision, device)
    student = place(create_model(job.student, seed=0), device)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3, fused=True)
    images = torch.randn(job.batch_size, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    targets = torch.randint(10, (job.batch_size,), device=device)

    def step() -> int:
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits = student(images)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        return job.batch_size

    return _timed(step, device), {"precision": str(precision).removeprefix("torch.")}


def _peak(job: Job) -> tuple[Run, dict[str, Any]]:
    device = choose_device(job.device)
    precision = choose_precision(job.precision, device)
    size = 4096 if device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device, dtype=precision) for _ in range(2))

    def step() -> int:
        torch.mm(left, right)
        return 1

    flop = 2 * size**3
    return _timed(step, device, warm=1), {"precision": str(precision).removeprefix("torch."), "flop_a_step": flop}
