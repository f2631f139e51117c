"""A small training that trainers run, in processes of their own where there are several, and what it must lead to."""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import steelyard

CLASSES, FEATURES, RATE = 4, 3, 0.5
WEIGHT = [0.25, 1.0, 3.0, 7.0]
ROWS = 32
BLOCKS = {1: (4, 4, 4, 4, 4, 4, 4, 4), 3: (12, 12, 8)}
"""Rows of each step, by micro-batches per step: four rows on one process, two on each of two. The last is short."""


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

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        assert labels is None  # the Trainer knows by this argument what the labels are called
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


def wanted(data: Rows, steps: tuple[int, ...], clip: float = 0.0, rate: float = RATE) -> tuple[Tensor, list[float]]:
    """Parameters after steps of these many rows each, and the loss of each step."""
    net, said = Net(), []
    optimizer = torch.optim.SGD(net.parameters(), rate)
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
        folder, use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", logging_steps=1,
        per_device_train_batch_size=4 // size, per_device_eval_batch_size=4 // size,
        gradient_accumulation_steps=steps, train_sampling_strategy="sequential", remove_unused_columns=False,
        **{"max_grad_norm": 0.0, "num_train_epochs": 1, **options},
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
    chosen = {name: options.pop(name) for name in ("loss", "sample_weight_column") if name in options}
    if kind is None or issubclass(kind, hugging_face.ExactMean):
        kind, chosen = kind or hugging_face.Trainer, {"loss": loss(), **chosen}
    arguments = hf_arguments(folder, size, steps, **options)
    trainer = kind(net, arguments, train_dataset=data, optimizers=(sgd, rate), **chosen)
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
    found = {}
    for steps in BLOCKS:
        for name, options in HF_CASES.items():
            found[name, steps] = hf_run(folder, size, steps, **options)[:2]
        found["plain", steps] = hf_run(folder, size, steps, kind=plain_trainer())[:2]
    return found


class Few(Dataset[dict[str, Tensor]]):
    """The first of some rows."""

    def __init__(self, data: Rows, count: int) -> None:
        self.data, self.count = data, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        if i >= self.count:
            raise IndexError
        return self.data[i]


def hf_evaluation(rank: int, size: int, folder: str) -> list[tuple[dict[str, float], float]]:
    """What is said of sets whose last batches are not full, and the loss of PyTorch for all of their rows."""
    from steelyard.trainers import hugging_face

    found = []
    for tokens, weighted, count in ((False, False, 32), (True, True, 29), (False, False, 13), (True, True, 17)):
        data, net = Rows(tokens, weighted), Net("tuple")
        column = {"sample_weight_column": "row_weight"} if weighted else {}
        trainer = hugging_face.Trainer(net, hf_arguments(folder, size, 1), loss=loss(), **column)
        output = trainer.predict(Few(data, count))
        rows = data.row_weight[:count] if weighted else None
        assert output.predictions[0].shape == (*data.x.shape[:-1], CLASSES) if count == ROWS else True
        true = rows_in_step(net.layer(data.x[:count]), data.labels[:count], rows).item()
        found.append((output.metrics["test_loss"], true))
    return found


def hf_sampled(rank: int, size: int, folder: str) -> list[list[int]]:
    """The rows of two epochs that a Trainer with a sampler of its own has trained on, on this rank."""
    from steelyard.samplers import WeightedRandomSampler
    from steelyard.trainers import hugging_face

    seen: list[Tensor] = []

    class Sampled(hugging_face.Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return WeightedRandomSampler(torch.arange(32) + 1.0, 24, num_replicas=1, rank=0, seed=3)

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            batches, items = super().get_batch_samples(*args, **kwargs)
            seen.extend(batch["x"] for batch in batches)
            return batches, items

    hf_run(folder, size, 3, kind=Sampled, num_train_epochs=2)
    return [[row_of(x) for x in batch] for batch in seen]


def row_of(x: Tensor) -> int:
    return int((Rows().x == x).all(1).nonzero())


# -------------------------------------------------------------------------------- Accelerate


def accelerate_sampled(**who: int) -> dict[str, list[Any]]:
    """The rows that loaders with samplers of this library give to this rank, after Accelerate has prepared them."""
    from accelerate import Accelerator

    from steelyard.samplers import BalancedBatchSampler, ClassBalancedSampler, WeightedRandomSampler

    labels = [0] * 50 + [1] * 14
    makers = {
        "weighted": {"sampler": WeightedRandomSampler(torch.arange(64) + 1.0, 24, seed=3, **who), "batch_size": 4},
        "class": {"sampler": ClassBalancedSampler(labels, 24, seed=3, **who), "batch_size": 4},
        "batches": {"batch_sampler": BalancedBatchSampler(labels, 2, 2, num_batches=6, seed=3, **who)},
    }
    found = {}
    for name, how in makers.items():
        loader = Accelerator(cpu=True).prepare(DataLoader(torch.arange(64), **how))
        found[name] = [[batch.tolist() for batch in loader] for _ in range(2)]
    return found


def accelerate_run(rank: int, size: int, steps: int) -> Tensor:
    """The recipe of docs/scale.md."""
    from accelerate import Accelerator

    from steelyard.distributed import loss_denominator

    accelerator, net, criterion = Accelerator(cpu=True), Net(), loss()
    model, optimizer, loader = accelerator.prepare(
        net, torch.optim.SGD(net.parameters(), RATE), DataLoader(Rows(), 4 // size)
    )
    batches = iter(loader)
    while step := list(itertools.islice(batches, steps)):
        denominator = loss_denominator(criterion, [batch["labels"] for batch in step])
        for batch in step:
            with contextlib.nullcontext() if batch is step[-1] else accelerator.no_sync(model):
                accelerator.backward(criterion(model(batch["x"])["logits"], batch["labels"], denominator=denominator))
        optimizer.step()
        optimizer.zero_grad()
    return flat(net)


def hugging_face(rank: int, size: int, folder: str) -> dict[str, Any]:
    """All of the above, in one process."""
    join(rank, size)
    return {
        "cases": hf_cases(rank, size, folder),
        "evaluation": hf_evaluation(rank, size, folder),
        "sampled": hf_sampled(rank, size, folder),
        "accelerate": {steps: accelerate_run(rank, size, steps) for steps in BLOCKS},
        "one of one": accelerate_sampled(num_replicas=1, rank=0),
        "by default": accelerate_sampled(),
    }


# -------------------------------------------------------------------------------- Lightning


def lightning_module(pl: Any, **options: Any) -> Any:
    """A module that knows nothing of accumulation: it calls its loss. ``doing`` is what its training step returns."""
    doing = options.pop("doing", lambda module, batch, number: module.value(batch))
    tokens, weighted = options.pop("tokens", False), options.pop("weighted", False)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()
            self.loss = options.get("loss") or loss()

        def value(self, batch: Any) -> Tensor:
            logits = self.net(batch["x"])["logits"].movedim(-1, 1)
            return self.loss(logits, batch["labels"], sample_weight=batch.get("row_weight"))

        def training_step(self, batch: Any, number: int) -> Any:
            return doing(self, batch, number)

        def validation_step(self, batch: Any, _: int) -> None:
            with torch.enable_grad():  # which alone does not make it training
                self.log("val", self.value(batch), batch_size=1)

        def configure_optimizers(self) -> Any:
            return options.get("optimizer", torch.optim.SGD)(self.parameters(), RATE)

        def train_dataloader(self) -> Any:
            data, size = Rows(tokens, weighted), self.trainer.world_size
            return DataLoader(data, 4 // size, sampler=in_order(data, size))

    return Module()


def in_order(data: Any, size: int) -> Any:
    """What Lightning's own choice is not: rank r has rows r, r + size, ..."""
    return DistributedSampler(data, shuffle=False) if size > 1 else None


def fit(module: Any, size: int, pl: Any = None, validate: Any = None, **options: Any) -> Any:
    """One epoch."""
    if pl is None:
        import lightning.pytorch as pl
    if size > 1:
        from lightning.fabric.plugins.environments import TorchElasticEnvironment

        options.update(strategy="ddp", devices=size, plugins=[TorchElasticEnvironment()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own advice on workers and log intervals
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, max_epochs=1, **options,
        )  # fmt: skip
        trainer.fit(module, val_dataloaders=validate)
    return trainer


def lightning_run(
    size: int, steps: int, pl: Any = None, plain: bool = False, validate: Any = None, **options: Any
) -> tuple[Tensor, list[float], Any]:
    """Parameters after an epoch, the means that were logged, and the trainer."""
    if pl is None:
        import lightning.pytorch as pl
    from steelyard.trainers.lightning import ExactMean

    said: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if not trainer.fit_loop._should_accumulate() and "step_mean" in trainer.callback_metrics:
                said.append(trainer.callback_metrics["step_mean"].item())

    callbacks = [] if plain else [ExactMean(options.pop("name", None), log="step_mean")]
    clip = options.pop("gradient_clip_val", None)
    module = lightning_module(pl, **options)
    trainer = fit(module, size, pl, validate, accumulate_grad_batches=steps, gradient_clip_val=clip,
                  callbacks=[*callbacks, Watch()])  # fmt: skip
    return flat(module.net), said, trainer


LIGHTNING_CASES: dict[str, dict[str, Any]] = {
    "rows": {},
    "tokens": {"tokens": True},
    "row weights": {"tokens": True, "weighted": True},
    "clipped": {"gradient_clip_val": 0.3},
    "halved": {"doing": lambda module, batch, _: {"loss": module.value(batch) * 0.5}},
}


def lightning_by_hand(size: int) -> Tensor:
    """The manual step of docs/scale.md: a loader gives the rows of a whole step, which are trained on in parts."""
    import lightning.pytorch as pl

    from steelyard.distributed import loss_denominator

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.net, self.loss = Net(), loss()

        def training_step(self, batch: Any, _: int) -> None:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            denominator = loss_denominator(self.loss, batch["labels"])
            for x, y in zip(batch["x"].split(4), batch["labels"].split(4), strict=True):
                self.manual_backward(self.loss(self.net(x)["logits"], y, denominator=denominator))
            optimizer.step()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), RATE)

        def train_dataloader(self) -> Any:
            return DataLoader(Rows(), 12 // size, sampler=in_order(Rows(), size))

    module = Module()
    fit(module, size)
    return flat(module.net)


def lightning_cases(rank: int, size: int) -> dict[Any, Any]:
    """Each case with one and three micro-batches per step, the plain way, and the manual one."""
    join(rank, size)
    seen: list[float] = []

    def looking(module: Any, batch: Any, number: int) -> Tensor:
        value = module.value(batch)
        seen.append(value.item())
        return value

    lightning_run(size, 1, doing=looking)
    found: dict[Any, Any] = {"by hand": lightning_by_hand(size), "seen": seen}
    for steps in BLOCKS:
        for name, options in LIGHTNING_CASES.items():
            found[name, steps] = lightning_run(size, steps, **options)[:2]
        found["plain", steps] = lightning_run(size, steps, plain=True)[:2]
    return found
