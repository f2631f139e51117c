"""count_classes on frames of other engines: real DuckDB, Dask, PySpark and Arrow, which do the counting themselves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from steelyard.counts import ClassCounts, count_classes

# Narwhals 2.26 says so of any use of Dask, whether or not the package to come is there.
pytestmark = pytest.mark.filterwarnings("ignore:Dask support is moving:FutureWarning")

duckdb = pytest.importorskip("duckdb")
dask = pytest.importorskip("dask.dataframe")

CASES = {
    "int": ([3, 1, 3, -2, 3], ClassCounts([-2, 1, 3], [1, 1, 3])),
    "str": (["dog", "cat", "dog", "Ünal", "dog"], ClassCounts(["cat", "dog", "Ünal"], [1, 3, 1])),
    "bool": ([True, False, True, True, True], ClassCounts([False, True], [1, 4])),
    "float": ([2.0, 0.0, 2.0, 2.0, 2.0], ClassCounts([0.0, 2.0], [1, 4])),
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One small and quiet session in this process."""
    if shutil.which("java") is None:
        pytest.skip("PySpark needs Java, and there is none here")
    sql = pytest.importorskip("pyspark.sql")
    folder = tmp_path_factory.mktemp("spark")
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    options = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.default.parallelism": "1",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(folder),
        "spark.log.level": "OFF",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    builder = sql.SparkSession.builder.master("local[1]").appName("steelyard")
    for name, value in options.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


def duck(values: dict[str, list[Any]]) -> Any:
    table = pa.table(values)
    return duckdb.from_arrow(table)


def lazy_dask(values: dict[str, list[Any]]) -> Any:
    return dask.from_pandas(pd.DataFrame(values), npartitions=2)


EAGER = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "arrow": pa.table,
    "pandas on arrow": lambda values: pa.table(values).to_pandas(types_mapper=pd.ArrowDtype),
}
LAZY = {"duckdb": duck, "dask": lazy_dask, "polars lazy": pl.LazyFrame}


@pytest.mark.parametrize("make", [*EAGER.values(), *LAZY.values()], ids=[*EAGER, *LAZY])
@pytest.mark.parametrize(("values", "expected"), CASES.values(), ids=CASES)
def test_every_engine_gives_the_same_counts(values: list[Any], expected: ClassCounts, make: Any) -> None:
    told: list[tuple[int, int | None]] = []
    counts = count_classes(make({"x": [1.5] * 5, "y": values}), "y", progress=lambda *now: told.append(now))
    assert counts == expected
    assert set(map(type, counts.classes)) == set(map(type, expected.classes))
    assert told[-1] == (5, 5)


@pytest.mark.parametrize(("values", "expected"), CASES.values(), ids=CASES)
def test_spark_gives_the_same_counts(values: list[Any], expected: ClassCounts, spark: Any) -> None:
    frame = spark.createDataFrame([(1.5, value) for value in values], ["x", "y"])
    counts = count_classes(frame, "y")
    assert counts == expected
    assert set(map(type, counts.classes)) == set(map(type, expected.classes))


def test_spark_says_what_is_wrong(spark: Any) -> None:
    frame = spark.createDataFrame([("a",), (None,), (None,)], ["y"])
    with pytest.raises(ValueError, match=r"a missing label at column 'y', in 2 rows. Drop or fill"):
        count_classes(frame, "y")
    with pytest.raises(ValueError, match=r"'target' must be a column of the frame; got 'z'. .*It has 'y'"):
        count_classes(frame, "z")
    broken = frame.selectExpr("raise_error('no such luck') as y")
    with pytest.raises(
        ValueError, match=r"a frame that pyspark can compute; got one that fails: .*no such luck"
    ) as told:
        count_classes(broken, "y")
    assert "\n" not in str(told.value)


def test_only_the_groups_leave_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What DuckDB hands over has a row per class: it would be a million rows if it did not count."""
    import narwhals.stable.v2 as nw

    heights: list[int] = []
    collect = nw.LazyFrame.collect

    def watched(self: Any, *args: Any, **options: Any) -> Any:
        found = collect(self, *args, **options)
        heights.append(len(found))
        return found

    monkeypatch.setattr(nw.LazyFrame, "collect", watched)
    relation = duckdb.sql("select range % 7 as y, 'x' || range as name from range(1000000)")
    assert count_classes(relation, "y").counts.tolist() == [142858] + [142857] * 6
    assert heights == [7]


@pytest.mark.parametrize("make", LAZY.values(), ids=LAZY)
def test_gaps_and_columns_of_lazy_frames(make: Any) -> None:
    where = "row 1 .the first is 0., column 'y'" if make is pl.LazyFrame else "column 'y', in 2 rows"
    for gap in ([1, None, None], ["a", None, None]):
        with pytest.raises(ValueError, match=rf"a missing label at {where}"):
            count_classes(make({"y": gap}), "y")
    with pytest.raises(ValueError, match=r"got 'zzz'. It has 'y'"):
        count_classes(make({"y": [1]}), "zzz")
    with pytest.raises(ValueError, match=r"that holds the labels; got None. It has 'y'"):
        count_classes(make({"y": [1]}))
    with pytest.raises(IndexError, match=r"labels in \[0, 2\); got 5 at (row 1|column 'y', in 1 row)"):
        count_classes(make({"y": [0, 5]}), "y", num_classes=2)
    with pytest.raises(ValueError, match=r"whole numbers where labels are floats; got 0.5 at"):
        count_classes(make({"y": [0.5]}), "y")


def test_a_nan_in_duckdb_is_a_missing_label() -> None:
    with pytest.raises(ValueError, match="a missing label at column 'y', in 1 row"):
        count_classes(duckdb.sql("select unnest(['NaN'::double, 1.0::double]) as y"), "y")


def test_declared_categories_of_an_engine() -> None:
    duckdb.sql("create type mood as enum ('sad', 'ok', 'happy')")
    counts = count_classes(duckdb.sql("select unnest(['ok', 'sad', 'ok'])::mood as y"), "y")
    assert counts.classes == ("sad", "ok", "happy")
    assert counts.counts.tolist() == [1, 2, 0]
    frame = pd.DataFrame({"y": pd.Categorical(["b", "a", "b"])})
    assert count_classes(dask.from_pandas(frame, npartitions=2), "y") == ClassCounts(["a", "b"], [1, 2])


def test_types_that_name_no_class() -> None:
    relation = duckdb.sql("select date '2020-01-01' as y")
    with pytest.raises(TypeError, match="'target' must be integers, strings, bools or whole floats; got Date in 'y'"):
        count_classes(relation, "y")
    with pytest.raises(TypeError, match="got Decimal"):
        count_classes(duckdb.sql("select 1.5::decimal(5, 1) as y"), "y")


def test_an_engine_that_fails(tmp_path: Path) -> None:
    relation = duckdb.sql("select case when range = 3 then error('no such luck') else range end as y from range(5)")
    with pytest.raises(
        ValueError, match=r"a frame that duckdb can compute; got one that fails: .*no such luck"
    ) as told:
        count_classes(relation, "y")
    assert "\n" not in str(told.value)


def test_a_progress_that_fails_is_not_taken_for_the_engine() -> None:
    def progress(done: int, total: int | None) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        count_classes(duck({"y": [1]}), "y", progress=progress)


def test_arrow_columns() -> None:
    for column in (
        pa.chunked_array([["b"], ["a", "b"]]),
        pa.chunked_array([pa.array(["b", "a", "b"]).dictionary_encode()]),
    ):
        assert count_classes(column) == ClassCounts(["a", "b"], [1, 2])
    assert count_classes(pa.chunked_array([[1, 2], [2]]), num_classes=3).counts.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="a missing label at position 1"):
        count_classes(pa.chunked_array([[1, None]]))


def test_without_narwhals_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "narwhals.stable.v2", None)
    monkeypatch.setitem(sys.modules, "narwhals", None)
    with pytest.raises(ImportError, match=r"count_classes: reading frames needs Narwhals. .*'steelyard\[data\]'"):
        count_classes(pd.DataFrame({"y": [1]}), "y")
