"""Samplers in the loaders and trainers that people have: killed midway, stateful, re-created, on several ranks."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from sampler_kinds import KINDS, Make, batches
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes
from torch.utils.data import DataLoader, TensorDataset

from steelyard.samplers import ClassBalancedSampler, RebalancedStream, WeightedRandomSampler

kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
TESTS = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata's call of PyTorch


def epoch_of(make: Make, epoch: int) -> list[Any]:
    sampler = make(seed=3)
    sampler.set_epoch(epoch)
    return list(sampler)


# -------------------------------------------------------------------------------- StatefulDataLoader


def stateful(make: Make, **options: Any) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    how = {"batch_sampler": make(seed=3)} if make is batches else {"sampler": make(seed=3), "batch_size": 4}
    return StatefulDataLoader(TensorDataset(torch.arange(64)), **how, **options)


def flat(make: Make, found: list[Any]) -> list[Any]:
    rows = [batch[0].tolist() for batch in found]
    return rows if make is batches else list(itertools.chain(*rows))


@kinds
@pytest.mark.parametrize("options", [{}, {"num_workers": 2, "prefetch_factor": 3}], ids=["here", "two workers"])
def test_a_stateful_loader_resumes_after_every_batch(make: Make, options: dict[str, Any]) -> None:
    whole = epoch_of(make, 1)
    steps = len(stateful(make))
    chosen = range(steps + 1) if not options else (0, 1, steps // 2, steps - 1, steps)
    for done in chosen:
        loader = stateful(make, **options)
        list(loader)  # epoch 0
        items = iter(loader)
        given = list(itertools.islice(items, done))
        state = loader.state_dict()
        del items
        fresh = stateful(make, **options)
        fresh.load_state_dict(state)
        if done == 0:  # torchdata has not begun epoch 1, and says so
            assert flat(make, list(fresh)) == whole
            continue
        assert flat(make, given) + flat(make, list(fresh)) == whole
        assert flat(make, list(fresh)) == epoch_of(make, 2)


@kinds
def test_a_stateful_loader_goes_on_after_whole_epochs(make: Make) -> None:
    loader = stateful(make)
    for _ in range(2):
        list(loader)
    fresh = stateful(make)
    fresh.load_state_dict(loader.state_dict())
    assert flat(make, list(fresh)) == epoch_of(make, 2)


def test_a_stateful_loader_resumes_a_stream() -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    def loader() -> Any:
        stream = [(torch.tensor(i), int(i % 7 == 0)) for i in range(700)]
        return StatefulDataLoader(RebalancedStream(stream, 1, seed=1, buffer_size=10), batch_size=8)

    whole = [batch[0].tolist() for batch in loader()]
    for done in (1, 5, len(whole) - 1):
        first = loader()
        given = [batch[0].tolist() for batch in itertools.islice(iter(first), done)]
        second = loader()
        second.load_state_dict(first.state_dict())
        assert given + [batch[0].tolist() for batch in second] == whole


# -------------------------------------------------------------------------------- killed and restarted

TRAINING = """
    import json, sys, time
    from pathlib import Path
    import torch
    from torch.utils.data import DataLoader, TensorDataset
    sys.path.insert(0, sys.argv[1])
    from sampler_kinds import weighted

    folder = Path(sys.argv[2])
    log, saved = folder / "log", folder / "state"
    sampler = weighted(seed=3)
    lines = []
    if saved.exists():
        state = json.loads(saved.read_text())
        sampler.load_state_dict(state["sampler"])
        lines = state["lines"]
    log.write_text("".join(line + "\\n" for line in lines))
    loader = DataLoader(TensorDataset(torch.arange(64)), sampler=sampler, batch_size=4, num_workers=2)
    for epoch in range(sampler.epoch, 2):
        sampler.set_epoch(epoch)
        used = 0
        for (rows,) in loader:
            used += len(rows)
            lines.append(json.dumps(rows.tolist()))
            draft = folder / "draft"
            draft.write_text(json.dumps({"sampler": sampler.state_dict(position=used), "lines": lines}))
            draft.replace(saved)
            with log.open("a") as file:
                print(lines[-1], file=file)
            time.sleep(0.02)
"""


def test_a_training_that_is_killed_midway_goes_on_where_it_was(tmp_path: Path) -> None:
    """Workers ask for batches in advance; what counts is what was trained on."""
    log = tmp_path / "log"
    arguments = [sys.executable, "-c", textwrap.dedent(TRAINING), str(TESTS), str(tmp_path)]
    wanted = [row for epoch in range(2) for row in epoch_of(KINDS["weighted"], epoch)]
    for stop_at in (3, 7, None):
        process = subprocess.Popen(arguments, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if stop_at is not None:
            deadline = time.monotonic() + 120
            while (not log.exists() or len(log.read_text().splitlines()) < stop_at) and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            os.killpg(process.pid, signal.SIGKILL)  # workers too
            process.communicate()
        else:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0, said.decode()
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert list(itertools.chain(*rows)) == wanted


# -------------------------------------------------------------------------------- several proces


def _rank(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    found = {}
    for name, make in KINDS.items():
        sampler = make(seed=3)
        assert (sampler.num_replicas, sampler.rank) == (world, rank)
        found[name] = list(sampler)
    Path(folder, f"rank{rank}").write_text(json.dumps(found))
    dist.barrier()  # or one is gone while others still connect
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_a_process_group_is_found(world: int, tmp_path: Path) -> None:
    start_processes(_rank, (world, str(tmp_path)), nprocs=world, start_method="fork")
    parts = [json.loads((tmp_path / f"rank{rank}").read_text()) for rank in range(world)]
    for name, make in KINDS.items():
        alone = epoch_of(make, 0)
        steps = itertools.chain(*zip(*(part[name] for part in parts), strict=True))
        assert list(steps)[: len(alone)] == alone


# -------------------------------------------------------------------------------- Lightning


def lightning_module(seen: list[list[int]], make: Any) -> Any:
    import lightning

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            seen.append(batch[0].tolist())
            return self.layer(batch[0][:, None].float()).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

        def train_dataloader(self) -> DataLoader[Any]:
            return make()

    return Model()


def trainer(**options: Any) -> Any:
    import lightning

    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def run(seen: list[list[int]], make: Any, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own advice on workers and log intervals
        trainer(**options).fit(lightning_module(seen, make))


@kinds
def test_lightning_trains_on_what_was_drawn(make: Make) -> None:
    data = TensorDataset(torch.arange(64))

    def loader() -> DataLoader[Any]:
        how: dict[str, Any] = (
            {"batch_sampler": make(seed=3)} if make is batches else {"sampler": make(seed=3), "batch_size": 4}
        )
        return DataLoader(data, **how)

    seen: list[list[int]] = []
    run(seen, loader, max_epochs=2)
    wanted = [item for epoch in range(2) for item in epoch_of(make, epoch)]
    assert (seen if make is batches else list(itertools.chain(*seen))) == wanted


def _lightning_rank(rank: int, world: int, folder: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ["STEELYARD_TEST_PORT"], RANK=str(rank), LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world), GROUP_RANK="0",
    )  # fmt: skip
    from lightning.fabric.plugins.environments import TorchElasticEnvironment

    data = TensorDataset(torch.arange(64))
    labels = [0] * 50 + [1] * 14
    found = {}
    makers = {
        "weighted": lambda: WeightedRandomSampler(torch.arange(64) + 1.0, 24, seed=3),
        "class": lambda: ClassBalancedSampler(labels, 24, seed=3),
    }
    for name, make in makers.items():
        seen: list[list[int]] = []

        def loader(make: Any = make) -> DataLoader[Any]:
            return DataLoader(data, sampler=make(), batch_size=4)

        run(seen, loader, max_epochs=2, strategy="ddp", devices=world, plugins=[TorchElasticEnvironment()])
        found[name] = list(itertools.chain(*seen))
    Path(folder, f"rank{rank}").write_text(json.dumps(found))


def test_lightning_on_two_ranks_leaves_the_sharing_to_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("STEELYARD_TEST_PORT", str(probe.getsockname()[1]))
    start_processes(_lightning_rank, (2, str(tmp_path)), nprocs=2, start_method="spawn")
    parts = [json.loads((tmp_path / f"rank{rank}").read_text()) for rank in range(2)]
    makers = {
        "weighted": WeightedRandomSampler(torch.arange(64) + 1.0, 24, seed=3),
        "class": ClassBalancedSampler([0] * 50 + [1] * 14, 24, seed=3),
    }
    for name, sampler in makers.items():
        wanted = list(sampler) + list(sampler)
        together = list(itertools.chain(*zip(*(part[name] for part in parts), strict=True)))
        assert together == wanted
