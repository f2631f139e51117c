"""The examples of docs/scale.md that need a framework run, one after another."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import trainer_jobs as jobs

import steelyard

PAGE = Path(__file__).parent.parent.parent / "docs/scale.md"
EXAMPLES = re.findall(r"```python\n(?!>>>)(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = jobs.Rows()
    labels = data.labels.clamp(min=0)
    counts = steelyard.count_classes(labels)
    names: dict[str, Any] = {"torch": torch, "steelyard": steelyard, "data": data, "held_out": data, "counts": counts}
    names["labels"] = labels
    assert len(EXAMPLES) == 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on workers, loggers and memory
        for example in EXAMPLES:
            model = names["model"] = jobs.Net()
            before = jobs.flat(model)
            exec(example, names)
            assert not jobs.flat(model).isnan().any()
            if "class BalancedTrainer" not in example:
                assert (jobs.flat(model) != before).any()
        names["arguments"].max_steps = 2
        balanced = names["BalancedTrainer"](jobs.Net(), names["arguments"], train_dataset=data, loss=names["loss"])
        balanced.train()
    sampler = balanced.callback_handler.train_dataloader.batch_sampler.sampler
    assert isinstance(sampler, steelyard.samplers.ClassBalancedSampler)
