"""Labels that only exist in samples: of a DataLoader and of iterable data sets, which have to be read to their end."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
)

from steelyard._errors import describe, refuse

__all__ = ["batches", "is_hugging_face", "rows_expected", "samples", "tables", "warn_of_loader"]

_TOGETHER = 4096  # samples of an iterable data set that are counted at a time
_ROWS = 1 << 16  # of a Hugging Face column that are counted at a time


def warn_of_loader(loader: DataLoader[Any], labels_known: bool) -> None:
    """Say where a DataLoader gives other counts than its data, and where reading it could be spared."""
    said = []
    sampler = loader.sampler if _has_plain_batches(loader) else loader.batch_sampler
    if isinstance(sampler, DistributedSampler):
        said.append("its sampler gives this rank a share of the rows (add up the ranks by all_reduce)")
    elif not isinstance(loader.dataset, IterableDataset) and not _draws_each_row_once(sampler):
        said.append(f"its {type(sampler).__name__} decides how often a row is drawn, so that draws are counted")
    if loader.drop_last:
        said.append("drop_last=True leaves out the rows of the last batch")
    if labels_known:
        said.append("it reads every sample, where count_classes(loader.dataset) reads none")
    if said:
        warnings.warn(f"count_classes: of this DataLoader: {'; '.join(said)}.", UserWarning, stacklevel=3)


def _has_plain_batches(loader: DataLoader[Any]) -> bool:
    return loader.batch_sampler is None or type(loader.batch_sampler) is BatchSampler


def _draws_each_row_once(sampler: Any) -> bool:
    once = type(sampler) in (SequentialSampler, SubsetRandomSampler)
    return once or (type(sampler) is RandomSampler and not sampler.replacement)


def rows_expected(loader: DataLoader[Any]) -> int | None:
    """Rows that a loader will give, or None where it does not say."""
    if isinstance(loader.dataset, IterableDataset) or not _has_plain_batches(loader):
        return None
    try:
        rows = len(loader.sampler)  # type: ignore[arg-type]  # most samplers know
    except (TypeError, NotImplementedError):
        return None
    return rows // loader.batch_size * loader.batch_size if loader.drop_last and loader.batch_size else rows


def batches(loader: DataLoader[Any], target: Any) -> Iterator[tuple[str, Any]]:
    """The labels of every batch, with a name for it."""
    if loader.batch_sampler is None:  # batch_size=None: samples come as they are
        yield from samples(loader, target)
        return
    for number, batch in enumerate(loader):
        yield f"batch {number}", _labels_of(batch, target, f"batch {number}")


def samples(source: Iterable[Any], target: Any) -> Iterator[tuple[str, Any]]:
    """The labels of every sample, some thousand together, with a name for them."""
    held: list[Any] = []
    number = -1
    for number, sample in enumerate(source):
        label = _labels_of(sample, target, f"sample {number}")
        is_scalar = isinstance(label, torch.Tensor | np.ndarray) and label.ndim == 0
        held.append(label.item() if is_scalar else label)
        if len(held) == _TOGETHER:
            yield f"the samples from {number + 1 - len(held)}", held
            held = []
    if held:
        yield f"the samples from {number + 1 - len(held)}", held


def is_hugging_face(source: Any) -> bool:
    """Whether ``source`` is a data set of Hugging Face's ``datasets``: columns in Arrow tables."""
    return all(hasattr(source, name) for name in ("features", "column_names", "with_format", "select_columns"))


def tables(source: Any, target: str) -> Iterator[tuple[str, Any]]:
    """The column ``target`` of a Hugging Face data set, some thousand rows at a time; no other column is touched."""
    row = 0
    for table in source.select_columns([target]).with_format("arrow").iter(batch_size=_ROWS):
        yield f"the rows from {row}", table[target]
        row += len(table)


def _labels_of(batch: Any, target: Any, where: str) -> Any:
    """The last element of a tuple or list, or the one that ``target`` names."""
    if isinstance(batch, Mapping):
        if target is None or target not in batch:
            names = ", ".join(map(repr, batch))
            _refuse_target("the key of the labels in a batch", target, f"{where} has {names}")
        return batch[target]
    if not isinstance(batch, tuple | list) or (len(batch) < 2 and target is None):
        rule = "data of samples and labels"
        hint = "Let the data set give pairs (sample, label), or dicts and the key of the label as 'target'."
        refuse("count_classes", "source", rule, f"{describe(batch)} as {where}", hint, error=TypeError)
    number = -1 if target is None else target
    if isinstance(number, bool) or not isinstance(number, int) or not -len(batch) <= number < len(batch):
        rule = "the number of the labels in a batch, or None for the last"
        _refuse_target(rule, target, f"{where} has {len(batch)} elements")
    return batch[number]


def _refuse_target(rule: str, target: Any, hint: str) -> NoReturn:
    hint = f"{hint[0].upper()}{hint[1:]}."
    refuse("count_classes", "target", rule, describe(target), hint, error=TypeError)
