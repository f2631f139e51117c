"""The benchmark of counting: it compares before it times, and the page says what the results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import counting


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = counting._peak_memory  # a process each: one will do
    monkeypatch.setattr(counting, "_peak_memory", lambda name, path: real(name, path) if name == "Polars" else None)
    output = tmp_path / "out.json"
    assert counting.main(["--rows", "3000", "--rounds", "2", "--output", str(output)]) == 0
    result = json.loads(output.read_text(encoding="utf-8"))
    assert result["protocol"]["rows"] == 3000
    for case in result["cases"]:
        assert set(case["contenders"]) == set(counting.CONTENDERS)
        assert all(entry["seconds"]["median"] > 0 for entry in case["contenders"].values())
        assert set(case["ratios"]) == {f"{name} / steelyard" for name in ("pandas", "Polars", "DuckDB")}
    printed = capsys.readouterr().out
    assert printed.count("| string |") == printed.count("| int64 |") == 4


def test_who_counts_wrongly_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "CONTENDERS", counting.CONTENDERS | {"pandas": lambda path: {0: 1}})
    monkeypatch.setattr(counting, "_peak_memory", lambda name, path: None)
    output = tmp_path / "out.json"
    assert counting.main(["--rows", "300", "--rounds", "2", "--output", str(output)]) == 1
    for case in json.loads(output.read_text(encoding="utf-8"))["cases"]:
        assert case["contenders"]["pandas"] == {"refused": "its counts are not those that were written"}
        assert "pandas / steelyard" not in case["ratios"]


def test_the_file_holds_what_it_is_said_to_hold(tmp_path: Path) -> None:
    import polars as pl

    for kind in counting.KINDS:
        truth = counting.write(tmp_path / "a.parquet", kind, 5000)
        labels = pl.read_parquet(tmp_path / "a.parquet")["label"]
        assert sum(truth.values()) == len(labels) == 5000
        assert dict(labels.value_counts().iter_rows()) == truth


@pytest.mark.parametrize("arguments", [["--rows", "0"], ["--rounds", "1"], ["--output", "."]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        counting.main(arguments)
    assert done.value.code == 2


def test_the_page_says_what_the_results_say() -> None:
    text = counting.PAGE.read_text(encoding="utf-8")
    assert counting.page(text) == text, "run python -m benchmarks.counting"
