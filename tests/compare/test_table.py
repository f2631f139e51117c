"""From a source to rows: roles of columns, labels, groups, and one line for whatever is wrong."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from steelyard.compare import InputError, inspect, load
from steelyard.compare.columns import MISSING, describe_columns, feature_frame
from steelyard.compare.table import class_labels, group_rows, join_groups


def roles(frame: pl.DataFrame, **options: Any) -> dict[str, str]:
    return {c.name: c.role for c in describe_columns(frame, "y", **options)}


def test_roles() -> None:
    n = 40
    frame = pl.DataFrame(
        {
            "float": [0.5, None] * 20,
            "int": [1, 2] * 20,
            "bool": [True, None] * 20,
            "text": ["a", "b"] * 20,
            "enum": pl.Series(["a", "b"] * 20, dtype=pl.Enum(["a", "b"])),
            "date": [dt.date(2020, 1, 1), dt.date(2020, 1, 2)] * 20,
            "number_as_text": ["1.5", "NA"] * 20,
            "postcode": ["0123", "0456"] * 20,
            "row_number": range(n),
            "name": [f"n{i}" for i in range(n)],
            "constant": [1] * n,
            "constant_or_missing": ["x", None] * 20,
            "empty": [None] * n,
            "list": [[1]] * n,
            "who": [i // 2 for i in range(n)],
            "unwanted": [1.0, 2.0] * 20,
            "y": ["p", "q"] * 20,
        }
    )
    assert roles(frame, drop=("unwanted",), group=("who",)) == {
        "float": "number",
        "int": "number",
        "bool": "number",
        "text": "category",
        "enum": "category",
        "date": "date",
        "number_as_text": "number",
        "postcode": "category",
        "row_number": "unused",
        "name": "unused",
        "constant": "unused",
        "constant_or_missing": "category",
        "empty": "unused",
        "list": "unused",
        "who": "group",
        "unwanted": "unused",
        "y": "target",
    }


def test_features_hold_numbers_with_nulls_and_words_without() -> None:
    frame = pl.DataFrame(
        {
            "x": [1.0, float("inf"), float("nan")],
            "t": ["3", "?", " 4"],
            "c": ["a", None, "b"],
            "d": [dt.date(1970, 1, 2), None, dt.date(1970, 1, 11)],
            "y": [0, 1, 0],
        }
    )
    features = feature_frame(frame, describe_columns(frame, "y"))
    assert features.to_dict(as_series=False) == {
        "x": [1.0, None, None],
        "t": [3.0, None, 4.0],
        "c": ["a", MISSING, "b"],
        "d": [1.0, None, 10.0],
    }


def test_words_among_numbers_count_as_missing_where_they_are_listed_too() -> None:
    frame = pl.DataFrame(
        {"t": ["1", "2", "?", None, "NaN", " 2"], "c": ["a", "?", None, "a", "a", "b"], "y": [0, 1] * 3}
    )
    columns = {c.name: c for c in describe_columns(frame, "y")}
    features = feature_frame(frame, list(columns.values()))
    assert (columns["t"].role, columns["t"].nulls, columns["t"].unique) == ("number", 3, 2)
    assert columns["t"].nulls == features["t"].null_count()
    assert (columns["c"].role, columns["c"].nulls, columns["c"].unique) == ("category", 1, 3)
    assert "'t' (50%)" in "".join(inspect(frame, "y").observations)


def test_group_rows_takes_missing_as_equal_to_missing() -> None:
    frame = pl.DataFrame({"a": [1.0, None, 1.0, None, 1.0], "b": ["x", "y", "x", "y", "z"]})
    assert group_rows(frame).tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "codes", "classes"),
    [
        (pl.Series(["b", "a", "b"]), [1, 0, 1], ("a", "b")),
        (pl.Series([10, 9, 10]), [1, 0, 1], (9, 10)),
        (pl.Series([True, False]), [1, 0], (False, True)),
        (pl.Series([1.0, 2.0, 1.0]), [0, 1, 0], (1, 2)),
        (pl.Series(["b", "a"], dtype=pl.Categorical), [1, 0], ("a", "b")),
        (pl.Series([dt.date(2021, 1, 1), dt.date(2020, 1, 1)]), [1, 0], ("2020-01-01", "2021-01-01")),
    ],
)
def test_class_labels(labels: pl.Series, codes: list[int], classes: tuple[Any, ...]) -> None:
    found, names = class_labels(labels, "f")
    assert found.tolist() == codes
    assert names == classes
    assert [type(n) for n in names] == [type(n) for n in classes]


def test_duplicates_stay_together_unless_told_otherwise(frame: pl.DataFrame) -> None:
    together = load(frame, "kind")
    assert together.groups[:40].tolist() == together.groups[-40:].tolist()
    assert len(np.unique(load(frame, "kind", split_duplicates=True).groups)) == frame.height


def test_group_and_varies_say_which_rows_are_one_case() -> None:
    frame = pl.DataFrame({"who": [1, 1, 2, 2], "visit": [1, 2, 1, 2], "age": [30, 30, 40, 40], "y": list("abab")})
    assert load(frame, "y", varies=["visit"], drop=["who"]).groups.tolist() == [0, 0, 1, 1]
    assert load(frame, "y", group=["who"]).groups.tolist() == [0, 0, 1, 1]
    assert load(frame, "y", group=["who"]).features.columns == ["visit", "age"]


def test_rows_with_equal_features_stay_together_beside_groups() -> None:
    frame = pl.DataFrame(
        {"who": [1, 1, 2, 3, 4, 5], "age": [30, 31, 31, 40, 50, 50], "at": [1, 2, 2, 4, 5, 6], "y": list("ababab")}
    )
    both = load(frame, "y", group=["who"])
    assert both.groups.tolist() == [0, 0, 0, 1, 2, 3]  # 1 and 2 meet in age 31, at 2
    assert both.grouping == "rows with the same 'who', and rows with identical features"
    assert load(frame, "y", group=["who"], split_duplicates=True).groups.tolist() == [0, 0, 1, 2, 3, 4]
    varied = load(frame, "y", group=["who"], varies=["at"])
    assert varied.groups.tolist() == [0, 0, 0, 1, 2, 2]
    assert varied.grouping.endswith("identical features (not counting 'at')")


def test_joined_groups_are_the_connected_components() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 60, 80), rng.integers(0, 60, 80)
    label = np.arange(80)
    for _ in range(80):  # the slow way: each row takes the smallest label among its neighbours until none changes
        for kind in (one, two):
            for value in np.unique(kind):
                label[kind == value] = label[kind == value].min()
    joined = join_groups([one, two])
    assert 1 < joined.max() < 79
    assert np.array_equal(joined[:, None] == joined, label[:, None] == label)


def test_repeated_measurements_are_noticed() -> None:
    rng = np.random.default_rng(0)
    person = np.repeat(rng.normal(size=(100, 3)), 5, axis=0)
    frame = pl.DataFrame(
        {"a": person[:, 0], "b": person[:, 1], "visits": rng.integers(0, 999, 500), "y": ["p", "q"] * 250}
    )
    notes = load(frame, "y").notes
    assert len(notes) == 1
    assert "Apart from 'visits' only 100 of" in notes[0]
    assert load(frame, "y", varies=["visits"]).notes == ()
    assert (
        load(frame.drop("visits").with_columns(pl.Series("z", rng.normal(size=500))), "y")
        .notes[0]
        .startswith("Apart from 'z'")
    )


@pytest.mark.parametrize(
    "convert", [pl.DataFrame.to_pandas, pl.DataFrame.to_arrow, pl.DataFrame.lazy], ids=["pandas", "arrow", "lazy"]
)
def test_other_frames_give_the_same_table(frame: pl.DataFrame, convert: Callable[[pl.DataFrame], Any]) -> None:
    ours, theirs = load(frame, "kind"), load(convert(frame), "kind")
    assert ours.target.tolist() == theirs.target.tolist()
    assert ours.features.equals(theirs.features)


def test_csv_and_parquet_give_the_same_table(csv: Path, parquet: Path) -> None:
    one, two = load(csv, "kind"), load(parquet, "kind")
    assert one.target.tolist() == two.target.tolist()
    assert one.groups.tolist() == two.groups.tolist()
    assert [c.role for c in one.columns] == [c.role for c in two.columns]


GOOD = pl.DataFrame({"x": [1, 2, 3, 3], "y": ["a", "b", "a", "b"]})
BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no source": (3, {}, "'source' must be the path of a CSV or Parquet file, or a data frame; got int 3"),
    "no rows": (GOOD.clear(), {}, "'source' must be a table with at least one row"),
    "no such column": (GOOD, {"target": "Y2"}, "'target' must be a column of the data; got 'Y2'"),
    "no such drop": (GOOD, {"drop": ["q"]}, "'drop' must be a column of the data; got 'q'. The columns are x, y."),
    "no such group": (GOOD, {"group": ["q"]}, "'group' must be a column of the data"),
    "drop the target": (GOOD, {"drop": ["y"]}, "'drop' must be columns other than the target; got 'y'"),
    "varies all": (GOOD, {"varies": ["x"]}, "'varies' must be some of the features, not all of them; got x"),
    "varies, and duplicates on both sides": (
        GOOD.with_columns(z=1.5),
        {"varies": ["x"], "split_duplicates": True},
        "'varies' must be left out where split_duplicates is given; got x.",
    ),
    "missing label": (
        GOOD.with_columns(pl.Series("y", ["a", None, "a", None])),
        {},
        "got 'y' with 2 missing, the first in row 1 (the first is 0).",
    ),
    "nan label": (
        GOOD.with_columns(pl.Series("y", [1.0, 2.0, float("nan"), 1.0])),
        {},
        "the first in row 2 (the first is 0)",
    ),
    "one class": (GOOD.with_columns(y=pl.lit("a")), {}, "at least two classes; got 'y', always 'a'"),
    "a measurement": (
        pl.DataFrame({"x": [1, 2] * 150, "y": np.linspace(0, 1, 300)}),
        {},
        "'y' with 300 different values, which looks like a number",
    ),
    "a name": (pl.DataFrame({"x": [1, 2] * 150, "y": [f"n{i}" for i in range(300)]}), {}, "looks like a name"),
    "nested": (pl.DataFrame({"x": [1, 2], "y": [[1], [2]]}), {}, "must be a column of classes; got 'y' of type List"),
    "no features": (
        GOOD.with_columns(x=1),
        {},
        "a usable feature beside the target; got data frame with none. 'x': the same value in every row. Classes alone",
    ),
}


@pytest.mark.parametrize(("source", "options", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(source, **{"target": "y", **options})
    assert message in str(caught.value)
    assert str(caught.value).startswith("compare: ")
    assert "\n" not in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x,y\n1,a\n2,b\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("x,y\n")
    (tmp_path / "notes.docx").write_text("x")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nonsense")
    (tmp_path / "binary.csv").write_bytes(b"x,y\n\xff\xfe\x00,a\n1,2,3,4\n")
    expected = {
        "dta.csv": "which does not exist. Did you mean " + str(tmp_path / "data.csv"),
        "empty.csv": "which is empty",
        "header.csv": "header.csv with 0 rows",
        "notes.docx": "must be a file ending in .parquet",
        "broken.parquet": "must be a readable parquet file",
        "binary.csv": "must be a readable csv file",
        "": "which is a folder. Several files are read as one by count_classes, `steelyard inspect`",
        "*.csv": "which is a pattern. Several files are read as one by",
    }
    for name, message in expected.items():
        with pytest.raises(InputError) as caught:
            load(tmp_path / name, "y")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_closest_column_is_suggested() -> None:
    with pytest.raises(InputError, match=r"got 'helth'\. Did you mean 'health'\?"):
        load(pl.DataFrame({"x": [1, 2], "health": ["a", "b"]}), "helth")
