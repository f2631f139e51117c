"""Saved logits and labels, from a table or an archive of arrays, as the tensors that a loss takes."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from steelyard.compare.read import bad, column, read
from steelyard.registry import LOSSES

__all__ = ["NAMES", "Predictions", "numbers_of", "read_predictions"]

NAMES = tuple(name for name, entry in LOSSES.items() if entry.input != "features")
"""Losses that saved predictions can be given to."""

LOGITS, TARGETS = ("logits", "input"), ("target", "labels", "label", "y")
"""What the arrays and the column of labels are called unless told."""


@dataclass(frozen=True)
class Predictions:
    """One file: what to call the loss with.

    Attributes:
        input: Logits (or probabilities), float, ``(N, C)``, ``(N,)`` or as the archive has them.
        target: Labels, int64, or probabilities, float.
        sample_weight: One for each row, if a column or array was named.
        loss: Name of the loss: as asked, or what the shapes suggest.
    """

    input: Tensor
    target: Tensor
    sample_weight: Tensor | None
    loss: str


def numbers_of(text: str | None, argument: str) -> list[float] | None:
    """``"0.1,1"`` as numbers."""
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        bad("explain", argument, "numbers separated by commas", f"'{text}'")


def read_predictions(
    path: Path, target: Sequence[str], logits: Sequence[str], sample_weight: str | None, loss: str | None
) -> Predictions:
    """Read a file.

    Args:
        path: CSV, TSV, Parquet or npz.
        target: Columns or the array of labels; none for the usual names.
        logits: Columns or the array of logits; none for the usual array, or all other columns of numbers.
        sample_weight: Column or array of row weights.
        loss: A name from ``NAMES``; None for cross entropy of several classes, and BCE with logits of one.
    Raises: InputError: the file, a column or a value cannot be used.
    """
    if loss is not None and loss not in NAMES:
        bad("explain", "loss", "one of " + ", ".join(NAMES), f"'{loss}'")
    archive = path.suffix.lower() == ".npz"
    parts = _arrays(path, target, logits, sample_weight) if archive else _columns(path, target, logits, sample_weight)
    input, labels, weights = parts
    if loss is None:
        several = input.dim() > 1 and input.shape[1] > 1
        loss = "cross_entropy" if several and labels.dim() < input.dim() else "binary_cross_entropy_with_logits"
        if several and labels.is_floating_point() and labels.shape == input.shape:
            rows = labels.sum(1)
            loss = "cross_entropy" if bool(((rows - 1).abs() < 1e-3).all()) else loss
    elements = LOSSES[loss].targets == ("elements",)
    if elements:
        input = input.squeeze(1) if input.dim() == 2 and input.shape[1] == 1 and labels.dim() == 1 else input
        labels = labels.to(input.dtype)
    elif labels.is_floating_point() and labels.dim() < input.dim():
        labels = _whole(labels, path)
    return Predictions(input, labels, weights, loss)


def _whole(labels: Tensor, path: Path) -> Tensor:
    """Labels that were saved as floats."""
    odd = labels != labels.round()
    if bool(odd.any()):
        at = int(odd.reshape(-1).nonzero()[0])
        bad("explain", "target", "class numbers", f"{float(labels.reshape(-1)[at]):g} in row {at} of {path}")
    return labels.long()


def _arrays(
    path: Path, target: Sequence[str], logits: Sequence[str], sample_weight: str | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    if not path.is_file():
        bad(
            "explain",
            "file",
            "the path of a file",
            f"{path}, which {'is a folder' if path.is_dir() else 'does not exist'}",
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        bad("explain", "file", "a readable npz file", f"{path}: {str(error).splitlines()[0].rstrip('.')}")
    input = _tensor(held, _pick(held, logits, LOGITS, "logits", path), path, "logits")
    labels = _tensor(held, _pick(held, target, TARGETS, "target", path), path, "target")
    weights = None
    if sample_weight is not None:
        weights = _tensor(held, _pick(held, [sample_weight], (), "sample-weight", path), path, "sample-weight")
    return input if input.is_floating_point() else input.double(), labels, weights


def _pick(held: dict[str, Any], given: Sequence[str], usual: Sequence[str], argument: str, path: Path) -> str:
    if len(given) > 1:
        bad("explain", argument, "the name of one array of an npz file", ", ".join(given))
    names = given or [name for name in usual if name in held][:1]
    if not names:
        hint = f"Say which one it is: --{argument} NAME."
        called = " or ".join(repr(name) for name in usual)
        bad("explain", argument, f"an array of {path} called {called}", ", ".join(held) or "no array", hint)
    if names[0] not in held:
        bad("explain", argument, f"an array of {path}", f"'{names[0]}'", f"It holds {', '.join(held) or 'nothing'}.")
    return names[0]


def _tensor(held: dict[str, np.ndarray], name: str, path: Path, argument: str) -> Tensor:
    values = held[name]
    if values.dtype.kind not in "fiub":
        bad("explain", argument, "an array of numbers", f"'{name}' of dtype {values.dtype} in {path}")
    if values.dtype.kind == "u":
        values = values.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(values).reshape(values.shape))


def _columns(
    path: Path, target: Sequence[str], logits: Sequence[str], sample_weight: str | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    frame, _ = read(path, "explain")
    names = list(target) or [next((name for name in TARGETS if name in frame.columns), TARGETS[0])]
    for name in names:
        column(frame, name, "explain", "target")
    apart = {*names, sample_weight}
    logits = [name for given in logits for name in ([given] if given in frame.columns else given.split(","))]
    taken = list(logits) or [name for name in frame.columns if name not in apart and frame[name].dtype.is_numeric()]
    for name in taken if not logits and len(taken) > 1 else ():
        if _numbers_rows(frame[name]):
            rest = ",".join(other for other in taken if other != name)
            hint = f"Say which columns are logits: --logits {rest}"
            bad("explain", "logits", "given where a column only numbers the rows", f"'{name}' in {path}", hint)
    if not taken:
        bad("explain", "logits", "columns of numbers", f"none beside the target in {path}")
    for name in taken:
        _check_numbers(column(frame, name, "explain", "logits"), path, "logits")
    weights = None
    if sample_weight is not None:
        series = _check_numbers(column(frame, sample_weight, "explain", "sample-weight"), path, "sample-weight")
        weights = torch.from_numpy(series.cast(pl.Float64).to_numpy().copy())
    dtype = pl.Float32 if all(frame[name].dtype == pl.Float32 for name in taken) else pl.Float64
    input = torch.from_numpy(frame.select(pl.col(taken).cast(dtype)).to_numpy().copy())
    labels = [_labels(frame[name], taken, path) for name in names]
    return input, labels[0] if len(labels) == 1 else torch.stack([part.double() for part in labels], 1), weights


def _numbers_rows(series: pl.Series) -> bool:
    """Whether whole numbers go up by one from row to row."""
    return len(series) > 2 and series.dtype.is_integer() and bool((series.diff().drop_nulls() == 1).all())


def _check_numbers(series: pl.Series, path: Path, argument: str) -> pl.Series:
    if not series.dtype.is_numeric():
        bad("explain", argument, "columns of numbers", f"'{series.name}' of {series.dtype} in {path}")
    _refuse_nulls(series, path, argument)
    return series


def _refuse_nulls(series: pl.Series, path: Path, argument: str) -> None:
    if series.null_count():
        row = int(series.is_null().arg_max() or 0)
        bad(
            "explain",
            argument,
            "without missing values",
            f"none in row {row} (the first is 0) of '{series.name}' in {path}",
        )


def _labels(series: pl.Series, taken: Sequence[str], path: Path) -> Tensor:
    """Class numbers; names of classes where the columns of logits are called by them."""
    _refuse_nulls(series, path, "target")
    if series.dtype.is_numeric() or series.dtype == pl.Boolean:
        wide = series.cast(pl.Float64 if series.dtype.is_float() else pl.Int64)
        return torch.from_numpy(wide.to_numpy().copy())
    words = series.cast(pl.String)
    known = {name: number for number, name in enumerate(taken)}
    strange = next((word for word in words.unique(maintain_order=True).to_list() if word not in known), None)
    if strange is not None:
        hint = f"The columns of logits are {', '.join(taken)}."
        bad(
            "explain",
            "target",
            "class numbers, or names of the columns of logits",
            f"'{strange}' in '{series.name}'",
            hint,
        )
    return torch.tensor([known[word] for word in words.to_list()], dtype=torch.int64)
