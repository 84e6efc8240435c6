"""The ways to distil a network for texts that are compared. Each trains whole epochs, for at least the seconds asked.

trainer        transformers' Trainer with a subclassed loss, which asks the teacher in each step; else its defaults
trainer_best   the same with texts grouped by length, the teacher in inference mode, and no progress bar or log
stored         this package, the teacher's answers stored: what `distill` does
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.optim_config import OptimConfig
from model_compression.core.table_config import TableConfig
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.engine.parts import Parts
from model_compression.engine.setup import prepare

TEMPERATURE, LABEL_WEIGHT, LR, CLIP = 2.0, 0.5, 1e-4, 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every way does: folders of transformers' networks, files of texts, the batch, tokens of a text."""

    student: str
    teacher: str
    train: str
    test: str
    batch_size: int
    length: int


Run = Callable[[float], tuple[int, float]]  # seconds → texts, seconds that they took


def ready(way: str, job: Job) -> tuple[Run, dict[str, Any]]:
    """The way, ready to run, and what is to be said of it."""
    if way.startswith("trainer"):
        return _trainer(job, best=way == "trainer_best")
    return _ours(job)


def _trainer(job: Job, *, best: bool) -> tuple[Run, dict[str, Any]]:
    import transformers
    from datasets import load_dataset

    network = transformers.AutoModelForSequenceClassification
    student, teacher = network.from_pretrained(job.student), network.from_pretrained(job.teacher).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(job.teacher)
    data = load_dataset("json", data_files=job.train, split="train").class_encode_column("label")
    data = data.map(
        lambda rows: tokenizer(rows["text"], truncation=True, max_length=job.length), batched=True,
        remove_columns=["text"],
    )  # fmt: skip
    asking = torch.inference_mode if best else torch.no_grad

    class Distilling(transformers.Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **other: Any) -> Any:
            outputs = model(**inputs)
            with asking():
                answers = teacher(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
            soft = F.kl_div(
                F.log_softmax(outputs.logits / TEMPERATURE, dim=1),
                F.softmax(answers / TEMPERATURE, dim=1),
                reduction="batchmean",
            )
            loss = LABEL_WEIGHT * outputs.loss + (1 - LABEL_WEIGHT) * TEMPERATURE**2 * soft
            return (loss, outputs) if return_outputs else loss

    class Clock(transformers.TrainerCallback):
        """Ends after the first epoch that ends behind ``seconds``; tells when epochs began and ended."""

        seconds, begun, ended, epochs = 0.0, 0.0, 0.0, 0

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **other: Any) -> None:
            if not self.epochs:
                self.begun = time.perf_counter()

        def on_epoch_end(self, args: Any, state: Any, control: Any, **other: Any) -> None:
            self.ended, self.epochs = time.perf_counter(), self.epochs + 1
            control.should_training_stop = self.ended - self.begun >= self.seconds

    options: dict[str, Any] = {"train_sampling_strategy": "group_by_length", "disable_tqdm": True} if best else {}
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1000, per_device_train_batch_size=job.batch_size,
        learning_rate=LR, max_grad_norm=CLIP, save_strategy="no", report_to="none", use_cpu=True,
        logging_strategy="no" if best else "steps", **options,
    )  # fmt: skip
    clock = Clock()
    trainer = Distilling(
        model=student, args=arguments, train_dataset=data, callbacks=[clock],
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )  # fmt: skip

    def run(seconds: float) -> tuple[int, float]:
        clock.seconds, clock.epochs = seconds, 0
        trainer.train()
        return clock.epochs * len(data), clock.ended - clock.begun

    return run, {"precision": "float32"}


def _ours(job: Job) -> tuple[Run, dict[str, Any]]:
    config = TrainConfig(
        student=ModelConfig(name=f"hf:{job.student}", options={"pretrained": True}),
        teacher=ModelConfig(name=f"hf:{job.teacher}", options={"pretrained": True}),
        method=MethodConfig(name="kd", params={"temperature": TEMPERATURE}, label_weight=LABEL_WEIGHT,
                            weights={"kd": 1 - LABEL_WEIGHT}),
        data=DataConfig(name=f"jsonl:{job.train}", table=TableConfig(test_table=job.test), max_length=job.length),
        optim=OptimConfig(optimizer="adamw", lr=LR, clip_grad_norm=CLIP),
        epochs=1000,
        batch_size=job.batch_size,
        precision="fp32",
        device="cpu",
        teacher_cache=str(Path(tempfile.mkdtemp()) / "answers"),
        allow_weak_teacher=True,
    )  # fmt: skip
    observer = ConsoleObserver()
    trainer = prepare(config, observer, Parts()).trainer
    observer.started(trainer, "test")
    assert isinstance(trainer.teacher, CachedTeacher)
    begun = time.perf_counter()
    trainer.teacher.view(0)
    facts: dict[str, Any] = {"precision": "float32", "fill_seconds": time.perf_counter() - begun}

    def run(seconds: float) -> tuple[int, float]:
        begun, epochs = time.perf_counter(), 0
        while not epochs or time.perf_counter() - begun < seconds:
            trainer.run_epoch(observer.stepped)
            epochs += 1
        return epochs * len(trainer.loader), time.perf_counter() - begun

    return run, facts
