"""The benchmark of counting: it compares before it times, and the page says what the results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import counting


def in_process(name: str, path: str) -> dict[str, object]:
    """A sample without a process of its own, which takes seconds to start."""
    return {"first_seconds": 0.2, "next_seconds": 0.1, "peak_extra_bytes": None,
            "counts": list(counting.CONTENDERS[name](path).items())}  # fmt: skip


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_sample", in_process)
    output = tmp_path / "out.json"
    assert counting.main(["--rows", "3000", "--rounds", "2", "--output", str(output)]) == 0
    result = json.loads(output.read_text(encoding="utf-8"))
    assert result["protocol"]["rows"] == 3000
    for case in result["cases"]:
        assert set(case["contenders"]) == set(counting.CONTENDERS)
        assert set(case["ratios"]) == {f"{name} / steelyard" for name in ("pandas", "Polars", "DuckDB")}
        assert case["ratios"]["pandas / steelyard"]["first_seconds"]["median"] == 1
    printed = capsys.readouterr().out
    assert printed.count("| string |") == printed.count("| int64 |") == 4


def test_a_sample_is_a_process_that_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    truth = counting.write(path, "string", 300_000)
    sample = counting._sample("Polars", str(path))
    assert dict(map(tuple, sample["counts"])) == truth
    assert sample["first_seconds"] > 0
    assert sample["next_seconds"] > 0
    with pytest.raises(RuntimeError, match="benchmarks: Polars failed: "):
        counting._sample("Polars", str(tmp_path / "none.parquet"))


def test_who_counts_wrongly_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_sample", in_process)
    monkeypatch.setattr(counting, "CONTENDERS", counting.CONTENDERS | {"pandas": lambda path: {0: 1}})
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
