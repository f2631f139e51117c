"""ClassCounts.all_reduce between real processes."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from steelyard.counts import ClassCounts

PROGRAM = """
import json, sys
import torch, torch.distributed as dist
from steelyard.counts import ClassCounts, count_classes

rank, size, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
said = []
def say(make):
    try:
        said.append(make().to_json())
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
{work}
print(json.dumps(said))
dist.destroy_process_group()
"""


def ranks(work: str, size: int, tmp_path: Path) -> list[list[str]]:
    """What each rank says of ``work``."""
    program = PROGRAM.replace("{work}", textwrap.dedent(work))
    command = [sys.executable, "-c", program]
    store = str(tmp_path / "store")
    running = [
        subprocess.Popen(
            [*command, str(rank), str(size), store], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(size)
    ]
    try:
        done = [process.communicate(timeout=100) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * size, done
    return [json.loads(out) for out, _ in done]


def test_all_ranks_end_with_the_sum(tmp_path: Path) -> None:
    work = """
        nothing = ClassCounts([], [])
        labels = [["dog", "cat", "dog"], ["eel"], None][rank]
        mine = nothing if labels is None else count_classes(labels)
        say(lambda: mine.all_reduce())
        rows = torch.eye(2) if rank else torch.ones(3, 2)
        say(lambda: count_classes(rows).all_reduce())
        say(lambda: (nothing if rank == 0 else count_classes(torch.full((1, 2, 2), rank))).all_reduce())
        say(lambda: nothing.all_reduce())
        pair = dist.new_group([0, 2])
        say(lambda: count_classes([rank]).all_reduce(pair))
        say(lambda: mine.all_reduce())
    """
    said = ranks(work, 3, tmp_path)
    for rank, values in enumerate(said):
        found = [ClassCounts.from_json(text) if text.startswith("{") else text for text in values]
        assert found[0] == found[5] == ClassCounts(["cat", "dog", "eel"], [1, 2, 1])
        assert found[1] == ClassCounts([0, 1], [5, 5], negatives=[2, 2])
        assert found[2] == ClassCounts([1, 2], [4, 4], images=[1, 1], image_pixels=[4, 4], num_images=2)
        assert found[3] == ClassCounts([], [])
        if rank == 1:
            assert found[4] == (
                "ValueError: ClassCounts.all_reduce: 'group' must be a group that this rank is a member of; "
                "got rank 1 outside of it."
            )
        else:
            assert found[4] == ClassCounts([0, 2], [1, 1])


def test_ranks_that_count_unlike_things_all_say_so(tmp_path: Path) -> None:
    work = """
        say(lambda: (ClassCounts([], []), count_classes([1]), count_classes(["1"]))[rank].all_reduce())
        say(lambda: count_classes(torch.ones(1, 2) if rank else [0, 1]).all_reduce())
        say(lambda: count_classes([rank]).all_reduce())
    """
    said = ranks(work, 3, tmp_path)
    assert said[0] == said[1] == said[2]
    assert said[0][0] == (
        "ValueError: ClassCounts.all_reduce: 'group' must be ranks that count alike; got single-label counts of int "
        "labels on rank 1 of the group and single-label counts of str labels on rank 2. Count the same column on every "
        "rank."
    )
    assert "single-label counts of int labels on rank 0 of the group and multi-label counts" in said[0][1]
    assert ClassCounts.from_json(said[0][2]) == ClassCounts([0, 1, 2], [1, 1, 1])


def test_without_a_process_group() -> None:
    with pytest.raises(
        RuntimeError, match=r"ClassCounts.all_reduce: 'group' must be an initialised process group; got none"
    ):
        ClassCounts([0], [1]).all_reduce()
