"""A small training that trainers run, in processes of their own where there are several, and what it must lead to."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import steelyard

CLASSES, FEATURES, RATE = 4, 3, 0.5
WEIGHT = [0.25, 1.0, 3.0, 7.0]
ROWS = 32
BLOCKS = {1: (4, 4, 4, 4, 4, 4, 4, 4), 3: (12, 12, 8)}
"""Rows of each step, by micro-batches per step: four rows on one process, two on each of two. The last step is short."""


class Rows(Dataset[dict[str, Tensor]]):
    """Rows in clusters of a class, so that parts of a step differ; some labels are ignored, one micro-batch of them."""

    def __init__(self, tokens: bool = False, weighted: bool = False) -> None:
        generator = torch.Generator().manual_seed(3)
        shape = (ROWS, 5) if tokens else (ROWS,)
        self.x = torch.randn(*shape, FEATURES, generator=generator, dtype=torch.float64)
        labels = torch.arange(ROWS).div(5, rounding_mode="floor").remainder(CLASSES)
        self.labels = labels[:, None].expand(shape).clone() if tokens else labels
        self.labels[torch.rand(shape, generator=generator) < 0.25] = -100
        self.labels[4:8] = -100
        self.row_weight = torch.rand(ROWS, generator=generator, dtype=torch.float64) + 0.1
        self.weighted = weighted

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        row = {"x": self.x[i], "labels": self.labels[i], "row_weight": self.row_weight[i]}
        return row if self.weighted else {name: row[name] for name in ("x", "labels")}


class Net(nn.Module):
    """What a model for the Hugging Face Trainer is like."""

    def __init__(self, answer: str = "dict") -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = nn.Linear(FEATURES, CLASSES, dtype=torch.float64)
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        logits = self.layer(x)
        return {"dict": {"logits": logits}, "tuple": (logits, x), "tensor": logits}[self.answer]


def loss(**options: Any) -> Any:
    return steelyard.nn.CrossEntropyLoss(WEIGHT, **{"label_smoothing": 0.1, "empty": "zero", **options})


def rows_in_step(logits: Tensor, labels: Tensor, rows: Tensor | None, smoothing: float = 0.1) -> Tensor:
    """The loss of a full batch, by PyTorch: a weighted sum, and what it is divided by."""
    weight = torch.tensor(WEIGHT, dtype=torch.float64)
    flat, target = logits.reshape(-1, CLASSES), labels.reshape(-1)
    each = nn.functional.cross_entropy(flat, target, weight, reduction="none", label_smoothing=smoothing)
    mass = torch.where(target == -100, 0.0, weight[target.clamp(min=0)])
    if rows is not None:
        v = rows.reshape(-1, *[1] * (labels.dim() - 1)).expand(labels.shape).reshape(-1)
        each, mass = each * v, mass * v
    return each.sum() / mass.sum()


def wanted(data: Rows, steps: tuple[int, ...], clip: float = 0.0) -> tuple[Tensor, list[float]]:
    """Parameters after steps of these many rows each, and the loss of each step."""
    net, said = Net(), []
    optimizer = torch.optim.SGD(net.parameters(), RATE)
    for x, y, v in zip(*(part.split(steps) for part in (data.x, data.labels, data.row_weight)), strict=True):
        value = rows_in_step(net.layer(x), y, v if data.weighted else None)
        if not value.isnan():  # a step whose labels are all ignored
            optimizer.zero_grad()
            value.backward()
            if clip:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
        said.append(0.0 if value.isnan() else value.item())
    return flat(net), said


def flat(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def join(rank: int, size: int) -> None:
    """What torchrun would tell a process; the process group is there already."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), LOCAL_WORLD_SIZE=str(size), GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1", MASTER_PORT="29511", ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1",
    )  # fmt: skip


# -------------------------------------------------------------------------------- Hugging Face


def hf_arguments(folder: str, size: int, steps: int, **options: Any) -> Any:
    import transformers

    return transformers.TrainingArguments(
        folder, use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", num_train_epochs=1, logging_steps=1,
        per_device_train_batch_size=4 // size, per_device_eval_batch_size=4 // size,
        gradient_accumulation_steps=steps, train_sampling_strategy="sequential", remove_unused_columns=False,
        **{"max_grad_norm": 0.0, **options},
    )  # fmt: skip


def plain_trainer() -> Any:
    """The way of the forums: a weighted loss of each micro-batch."""
    import transformers

    class Plain(transformers.Trainer):
        loss_is_scaled_for_ga = False

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            outputs = model(inputs["x"])
            value = loss()(outputs["logits"].movedim(-1, 1), inputs["labels"])
            return (value, outputs) if return_outputs else value

    return Plain


def hf_run(folder: str, size: int, steps: int, tokens: bool = False, kind: Any = None, **options: Any) -> Any:
    """Parameters after an epoch, the losses that were logged, and the trainer."""
    from steelyard.trainers import hugging_face

    net, data = Net(options.pop("answer", "dict")), Rows(tokens, "sample_weight_column" in options)
    sgd = torch.optim.SGD(net.parameters(), RATE)
    rate = torch.optim.lr_scheduler.LambdaLR(sgd, lambda _: 1.0)
    chosen = {name: options.pop(name) for name in ("loss", "sample_weight_column", "shift_labels") if name in options}
    if kind is None:
        kind, chosen = hugging_face.Trainer, {"loss": loss(), **chosen}
    given = {name: options.pop(name) for name in ("eval_dataset",) if name in options}
    arguments = hf_arguments(folder, size, steps, **options)
    trainer = kind(net, arguments, train_dataset=data, optimizers=(sgd, rate), **chosen, **given)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        trainer.train()
    return flat(net), [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], trainer


HF_CASES: dict[str, dict[str, Any]] = {
    "rows": {},
    "tokens": {"tokens": True},
    "row weights": {"tokens": True, "sample_weight_column": "row_weight"},
    "clipped": {"max_grad_norm": 0.3},
    "alone": {"average_tokens_across_devices": False},
    "tuple": {"answer": "tuple"},
}


def hf_cases(rank: int, size: int, folder: str) -> dict[Any, Any]:
    """Each case with one and three micro-batches per step, and the plain way."""
    join(rank, size)
    found = {}
    for steps in BLOCKS:
        for name, options in HF_CASES.items():
            found[name, steps] = hf_run(folder, size, steps, **options)[:2]
        found["plain", steps] = hf_run(folder, size, steps, kind=plain_trainer())[:2]
    return found
