"""Small data for the comparison: made here, so that the truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from steelyard.compare import Comparison, compare
from steelyard.compare.train import quiet_threads


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """The models are tiny: threads would only wait for each other."""
    with quiet_threads(1):
        yield


def make_frame(rows: int = 400, seed: int = 0) -> pl.DataFrame:
    """Three classes (about 80, 15 and 5 %), numbers, categories, dates, missing values, repeats, useless columns."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, rows, p=[0.8, 0.15, 0.05])
    y[:30] = np.arange(30) % 3
    x = rng.normal(size=rows) + 1.5 * y
    frame = pl.DataFrame(
        {
            "size": np.where(rng.random(rows) < 0.1, np.nan, x),
            "count": rng.poisson(2, rows),
            "colour": rng.choice(["red", "green", "blue"], rows),
            "seen": np.datetime64("2020-01-01") + rng.integers(0, 400, rows).astype("timedelta64[D]"),
            "nothing": pl.Series([None] * rows, dtype=pl.Float64),
            "same": ["x"] * rows,
            "name": [f"case {i}" for i in range(rows)],
            "kind": np.array(["common", "rare", "rarest"])[y],
        }
    ).with_columns(pl.col("size").fill_nan(None), pl.when(pl.col("count") > 0).then("colour").alias("colour"))
    return pl.concat([frame, frame.head(40)])


@pytest.fixture(scope="session")
def frame() -> pl.DataFrame:
    return make_frame()


@pytest.fixture(scope="session")
def csv(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small.csv"
    frame.write_csv(path)
    return path


@pytest.fixture(scope="session")
def parquet(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small.parquet"
    frame.write_parquet(path)
    return path


@pytest.fixture(scope="session")
def comparison(parquet: Path) -> Comparison:
    """Every remedy, as quickly as it goes."""
    return compare(parquet, "kind", folds=3, repeats=2, epochs=3, seed=1)
