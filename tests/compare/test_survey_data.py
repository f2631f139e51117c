"""The demo's data is what the facts say it is, and nothing of the original is lost on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from statsmodels.datasets import randhie

from steelyard.compare import inspect

EXAMPLE = Path(__file__).parents[2] / "examples" / "survey_data.py"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    out = tmp_path_factory.mktemp("survey") / "not" / "there" / "randhie.parquet"
    done = subprocess.run([sys.executable, str(EXAMPLE), str(out)], capture_output=True, text=True, check=True)
    assert "20,190 rows, 8 columns" in done.stdout
    return pl.read_parquet(out)


def test_counts_and_duplicates(written: pl.DataFrame) -> None:
    found = inspect(written, "health")
    assert {c["label"]: c["count"] for c in found.to_dict()["classes"]} == {
        "excellent": 11019,
        "good": 7309,
        "fair": 1560,
        "poor": 302,
    }
    assert found.duplicates.repeated == 11_065
    assert any("Apart from 'doctor_visits'" in text for text in found.observations)


def test_rows_keep_their_order_and_their_values(written: pl.DataFrame) -> None:
    original = randhie.load_pandas().data
    names = ["mdvis", "lncoins", "idp", "lpi", "fmde", "physlm", "disea"]
    assert np.array_equal(written.drop("health").to_numpy(), original[names].to_numpy())
    for column, word in {"hlthg": "good", "hlthf": "fair", "hlthp": "poor"}.items():
        assert np.array_equal((written["health"] == word).to_numpy(), original[column].to_numpy() == 1)


def test_usage() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "usage:" in done.stderr
