"""A classifier whose classes are spread over ranks, trained, saved, and resumed on another number of them.

    torchrun --nproc-per-node 2 examples/extreme_classification.py --steps 20 --checkpoint run
    torchrun --nproc-per-node 3 examples/extreme_classification.py --steps 40 --checkpoint run
    torchrun --nproc-per-node 2 examples/extreme_classification.py --classes 1000000 --width 256 --steps 5

The second command goes on where the first one stopped, and its losses are those of a run that was never stopped. Ranks
do two things: each reads its own rows and computes their features, and each holds its own classes, for the rows of all.
The data are made here: a class is known by the binary digits of its number, seen through noise; it is a long tail.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.utils.data import DataLoader, TensorDataset

from steelyard import class_weights
from steelyard.distributed import ClassParallelLinearCrossEntropy, loss_denominator
from steelyard.samplers import ClassBalancedSampler

PROGRESS = "progress.pt"  # written last: a folder without it is not whole


def data(classes: int, rows: int, seed: int) -> TensorDataset:
    """Rows of a long tail: the class of number r comes about 1/r as often as the first."""
    random = torch.Generator().manual_seed(seed)
    labels = (classes ** torch.rand(rows, generator=random, dtype=torch.float64)).long() - 1
    digits = (labels[:, None] >> torch.arange(max(classes - 1, 1).bit_length())) & 1
    return TensorDataset(2.0 * digits - 1.0 + 0.3 * torch.randn(digits.shape, generator=random), labels)


class Model(nn.Module):
    """Features, the same on every rank, and a classifier, a shard of it on each."""

    def __init__(self, inputs: int, width: int, weight: Tensor, chunk_bytes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.LayerNorm(width))
        self.loss = ClassParallelLinearCrossEntropy(width, len(weight), weight=weight, memory_budget=chunk_bytes)


def gathered(own: Tensor) -> Tensor:
    """The rows of all ranks, in the order of ranks.

    Only this rank's have a gradient to pass on, and it is the whole one: every rank computes the same loss of all rows,
    and the classifier adds the gradients of its shards up.
    """
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own.detach().contiguous())
    parts[dist.get_rank()] = own
    return torch.cat(parts)


def step(model: Model, optimizer: torch.optim.Optimizer, batches: list[list[Tensor]]) -> float:
    """One step of the optimizer on some micro-batches: the mean over all of their rows on all ranks."""
    # One number that all losses of the step divide by. The losses are those of all ranks' rows already: nothing is left
    # to be averaged over ranks.
    denominator = loss_denominator(model.loss, [labels for _, labels in batches], gradients_averaged=False)
    optimizer.zero_grad()
    total = torch.zeros(())
    for inputs, labels in batches:
        loss = model.loss(gathered(model.features(inputs)), gathered(labels), denominator=denominator)
        loss.backward()
        total += loss.detach()
    for parameter in model.features.parameters():  # each rank has the gradient of its own rows
        dist.all_reduce(parameter.grad)
    optimizer.step()
    return float(total)


@torch.no_grad()
def accuracy(model: Model, held_out: TensorDataset, k: int) -> float:
    """The share of rows whose class is among the k most probable."""
    inputs, labels = held_out.tensors
    found = model.loss.predict(model.features(inputs), k, logit_offset=-model.loss.weight.log())
    return float((found.classes == labels[:, None]).any(1).double().mean())


def state_of(model: Model, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What is saved of each shard; torch.distributed.checkpoint deals it out to any number of ranks."""
    parameters, moments = get_state_dict(model, optimizer)
    return {"model": parameters, "optimizer": moments}


def newest(checkpoint: Path | None) -> Path | None:
    """The last state that was written to its end."""
    if checkpoint is None:
        return None
    whole = [path.parent for path in checkpoint.glob(f"step-*/{PROGRESS}")]
    return max(whole, key=lambda folder: int(folder.name.removeprefix("step-")), default=None)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=5000, help="classes of all ranks together")
    parser.add_argument("--width", type=int, default=64, help="features of a row")
    parser.add_argument("--rows", type=int, default=50_000, help="rows of the training data")
    parser.add_argument("--batch", type=int, default=384, help="rows of a step, over all ranks and micro-batches")
    parser.add_argument("--accumulate", type=int, default=2, help="micro-batches of a step")
    parser.add_argument("--steps", type=int, default=20, help="steps in all, those before a resumption included")
    parser.add_argument("--chunk-bytes", type=int, default=64 << 20, help="logits in memory at a time")
    parser.add_argument("--checkpoint", type=Path, help="a folder to resume from, if it holds a run, and to save to")
    return parser.parse_args()


def main() -> None:
    given = options()
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    if given.batch % (world * given.accumulate):
        raise SystemExit(f"--batch {given.batch} does not go into {world} ranks × {given.accumulate} micro-batches")
    torch.manual_seed(0)  # the features start out the same on every rank; the classifier sees to itself

    train = data(given.classes, given.rows, seed=1)
    inputs, labels = train.tensors
    # Half of the correction by the sampler, half by the weights; classes that never came count as the rarest.
    counts = torch.bincount(labels, minlength=given.classes)
    weight = class_weights(counts, "balanced", power=0.5, normalize="prior", missing="max")
    model = Model(inputs.shape[1], given.width, weight, given.chunk_bytes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    sampler = ClassBalancedSampler(labels, power=0.5, seed=0)  # finds rank and number of ranks by itself

    done = before = 0
    if (folder := newest(given.checkpoint)) is not None:
        state = state_of(model, optimizer)
        dcp.load(state, checkpoint_id=folder)
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        past = torch.load(folder / PROGRESS)
        done = before = past["steps"]
        sampler.load_state_dict(past["sampler"])
        if rank == 0:
            print(f"resumed after step {done}", flush=True)
            if done >= given.steps:
                print(f"nothing is left to do: {done} steps are done", flush=True)

    each = given.batch // (world * given.accumulate)
    loader = DataLoader(train, batch_size=each, sampler=sampler, drop_last=True)
    while done < given.steps:
        micro: list[list[Tensor]] = []
        for batch in loader:
            micro.append(batch)
            if len(micro) < given.accumulate:
                continue
            loss, micro, done = step(model, optimizer, micro), [], done + 1
            if rank == 0:
                print(f"step {done}: loss {loss:.6f}", flush=True)
            if done == given.steps:
                break

    found = accuracy(model, data(given.classes, 2000, seed=2), k=5)
    if given.checkpoint is not None and done > before:
        folder = given.checkpoint / f"step-{done}"
        dcp.save(state_of(model, optimizer), checkpoint_id=folder)
        if rank == 0:
            torch.save({"steps": done, "sampler": sampler.state_dict()}, folder / PROGRESS)
    if rank == 0:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        shard = model.loss.shard
        print(f"{len(shard)} of {given.classes} classes on rank 0 of {world}; at most {peak} MiB in its process")
        print(f"among the first 5 of {given.classes}: {found:.1%} of held-out rows")
    dist.barrier()
    dist.destroy_process_group()
    # PyTorch's gloo now and then aborts a process at its very end, where a mesh outlives its group. All is done by now.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
