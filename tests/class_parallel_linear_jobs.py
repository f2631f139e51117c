"""The jobs that tests of the sharded classifier give to ranks."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from class_parallel_jobs import counted
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import steelyard
from steelyard.distributed import ClassParallelLinearCrossEntropy, loss_denominator

F64 = torch.float64
SIZE, ROWS = 5, 6


def full(parameter: Tensor) -> Tensor:
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def beside_the_whole(rank: int, size: int) -> list[Any]:
    """Losses and all gradients of the module and of one layer with a loss, in float64; what differs."""
    generator, wrong = torch.Generator().manual_seed(23), []

    def randn(*sizes: int) -> Tensor:
        return torch.randn(sizes, dtype=F64, generator=generator)

    for number, (classes, soft, weighted, smoothing, rule) in enumerate(
        itertools.product((11, 3, 1), (False, True), (False, True), (0.0, 0.2), ("none", "torch", "weights"))
    ):
        options: dict[str, Any] = {
            "label_smoothing": smoothing, "smooth_weight": ("class", "target")[number % 2],
            "reduction": "none" if rule == "none" else "mean", "denominator": "torch" if rule == "none" else rule,
        }  # fmt: skip
        if weighted:
            options |= {"weight": randn(classes).exp(), "logit_offset": randn(classes)}
        torch.manual_seed(number)
        module = ClassParallelLinearCrossEntropy(
            SIZE, classes, bias=bool(number % 3), dtype=F64, memory_budget=(None, 1, 64)[number % 3], **options
        )
        here = slice(module.shard.start, module.shard.stop)
        x, rows = randn(ROWS, SIZE), randn(ROWS).exp()
        target = randn(ROWS, classes).softmax(1) if soft else torch.randint(classes, (ROWS,), generator=generator)
        if not soft:
            target[1] = -100
        upstream = randn(ROWS) if rule == "none" else randn()
        layer = [full(p).detach().clone().requires_grad_() for p in module.linear.parameters()]
        for twice in (False, True):
            features, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
            found = module(features, target[:, here] if soft else target, sample_weight=rows)
            logits = torch.nn.functional.linear(theirs, *layer)
            expected = steelyard.functional.cross_entropy(logits, target, sample_weight=rows, **options)
            ours = torch.autograd.grad(found, [features, *module.linear.parameters()], upstream, create_graph=twice)
            wanted = torch.autograd.grad(expected, [theirs, *layer], upstream, create_graph=twice)
            if twice:  # a function of the gradients: of shards, summed up over ranks; of features, the same on all
                penalty = sum((g.to_local() if hasattr(g, "to_local") else g).square().sum() for g in ours)
                ours = torch.autograd.grad(penalty, [features, *module.linear.parameters()], materialize_grads=True)
                penalty = sum(g.square().sum() for g in wanted)
                wanted = torch.autograd.grad(penalty, [theirs, *layer], materialize_grads=True)
            for a, b in zip((found, *map(full, ours)), (expected, *wanted), strict=True):
                if a.shape != b.shape or not torch.allclose(a, b, rtol=1e-10, atol=1e-10, equal_nan=True):
                    wrong.append((number, classes, soft, options, twice, a, b))
    return wrong[:3]


def narrow(rank: int, size: int) -> dict[str, float]:
    """Relative errors against float64 of gradients in half precision, beside those of the layer in that precision."""
    errors = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        generator = torch.Generator().manual_seed(29)
        module = ClassParallelLinearCrossEntropy(
            16, 5001, bias=True, dtype=dtype, memory_budget=300_000, reduction="none"
        )
        layer = [full(p).detach() for p in module.linear.parameters()]
        x = torch.randn(64, 16, generator=generator).to(dtype)
        target = torch.randint(5001, (64,), generator=generator)

        def whole(wide: torch.dtype, x: Tensor = x, layer: Any = layer, target: Tensor = target) -> tuple[Tensor, ...]:
            given = [t.to(wide).requires_grad_() for t in (x, *layer)]
            loss = torch.nn.functional.cross_entropy(torch.nn.functional.linear(*given), target, reduction="none")
            return loss.detach(), *torch.autograd.grad(loss, given, torch.full_like(loss, 1 / 64))

        features = x.clone().requires_grad_()
        loss = module(features, target)
        gradients = torch.autograd.grad(loss, [features, *module.linear.parameters()], torch.full_like(loss, 1 / 64))
        ours = loss.detach(), *map(full, gradients)
        assert all(t.dtype == dtype for t in ours)
        for what, a, b, c in zip(("loss", "input", "weight", "bias"), ours, whole(dtype), whole(F64), strict=True):
            for who, found in (("ours", a), ("eager", b)):
                errors[f"{dtype} {what} {who}"] = ((found.double() - c).norm() / c.norm()).item()
    return errors


def predictions(rank: int, size: int) -> list[Any]:
    wrong = []
    for classes, k, bias in itertools.product((11, 3, 1), (1, 3, 11), (False, True)):
        if k > classes:
            continue
        torch.manual_seed(k)
        module = ClassParallelLinearCrossEntropy(SIZE, classes, bias=bias, dtype=F64, memory_budget=100)
        generator = torch.Generator().manual_seed(31)
        x = torch.randn(ROWS, SIZE, dtype=F64, generator=generator)
        offset = torch.randn(classes, dtype=F64, generator=generator)
        offset[-1] = -torch.inf if classes > 1 else 0.0
        layer = [full(p).detach() for p in module.linear.parameters()]
        for given in (None, offset):
            logits = torch.nn.functional.linear(x, *layer) + (0.0 if given is None else given)
            wanted = logits.softmax(1).topk(k, 1)
            for features, expected in ((x, wanted), (x[0], [part[0] for part in wanted])):
                found = module.predict(features, k, logit_offset=given)
                same = torch.allclose(found.probabilities, expected[0], rtol=1e-10, atol=1e-14)
                if not same or not torch.equal(found.classes, expected[1]):
                    wrong.append((classes, k, given, found, expected))
    return wrong


def first_weights(rank: int, size: int) -> list[Tensor]:
    """What every number of ranks must begin with, if rank 0 has this seed; another's does not matter."""
    torch.manual_seed(37 + 100 * rank)
    return [full(p) for p in ClassParallelLinearCrossEntropy(4, 1201, bias=True).linear.parameters()]


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(41)
    return torch.randn(32, SIZE, generator=generator, dtype=F64), torch.randint(11, (32,), generator=generator)


def trained(module: Any, steps: int, optimizer: Any = None) -> tuple[list[float], Any]:
    optimizer = optimizer or torch.optim.Adam(module.parameters(), 0.1)
    (x, target), losses = data(), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = module(x, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    return losses, optimizer


def made() -> Any:
    torch.manual_seed(43)
    return ClassParallelLinearCrossEntropy(SIZE, 11, bias=True, dtype=F64, weight=[1.0] * 10 + [3.0])


def saved(rank: int, size: int, folder: str) -> dict[str, Any]:
    """A few steps, a checkpoint, and a few steps more."""
    module = made()
    before, optimizer = trained(module, 3)
    model_state, optimizer_state = get_state_dict(module, optimizer)
    dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder)
    shapes = {name: (tuple(value.shape), hasattr(value, "full_tensor")) for name, value in module.state_dict().items()}
    return {"before": before, "after": trained(module, 3, optimizer)[0], "shapes": shapes}


def loaded(rank: int, size: int, folder: str) -> dict[str, Any]:
    """The steps after the checkpoint, on another number of ranks."""
    module = made()
    module.linear.reset_parameters(seed=1)
    optimizer = torch.optim.Adam(module.parameters(), 0.1)
    model_state, optimizer_state = get_state_dict(module, optimizer)
    state = {"model": model_state, "optimizer": optimizer_state}
    dcp.load(state, checkpoint_id=folder)
    set_state_dict(module, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    return {"after": trained(module, 3, optimizer)[0]}


def disagreements(rank: int, size: int) -> dict[str, str]:
    odd = rank == size - 1
    module = ClassParallelLinearCrossEntropy(SIZE, 11)
    x, y = torch.zeros(4, SIZE), torch.tensor([0, 1, 2, 3])
    calls: dict[str, Callable[[], Any]] = {
        "rows": lambda: module(x[:3] if odd else x, y[:3] if odd else y),
        "dtype": lambda: module(x.double() if odd else x, y),
        "size": lambda: module(x[:, :3] if odd else x, y),
        "target": lambda: module(x, y.roll(1) if odd else y),
        "gradient": lambda: module(x.clone().requires_grad_(odd), y),
        "predicted rows": lambda: module.predict(x[:3] if odd else x),
        "k": lambda: module.predict(x, 2 if odd else 3),
        "k out of range": lambda: module.predict(x, 12 if odd else 3),
    }
    told = {}
    for label, call in calls.items():
        try:
            told[label] = str(call())
        except Exception as error:
            told[label] = f"{type(error).__name__}: {error}"
        dist.barrier()
    return told


def communicated(rank: int, size: int) -> dict[Any, Any]:
    found = {}
    for classes, budget in itertools.product((8, 4096), (None, 1)):
        module = ClassParallelLinearCrossEntropy(SIZE, classes, memory_budget=budget)
        with counted() as calls:
            module(torch.zeros(10, SIZE, requires_grad=True), torch.arange(10) % 8).backward()
        with counted() as predicted:
            module.predict(torch.zeros(10, SIZE), 3)
        found[classes, budget] = list(calls), list(predicted)
    return found


def kept(rank: int, size: int) -> list[str]:
    """What modules go through in training scripts: autocast, copies, averages, pickles; what comes out wrong."""
    wrong = []
    torch.manual_seed(3)
    module = ClassParallelLinearCrossEntropy(16, 50, bias=True)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(30.0)
    x, target = torch.randn(8, 16), torch.arange(8)
    gradients = []
    for inside in (False, True):
        features = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = module(features, target)
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        gradients.append([features.grad, *(full(p.grad) for p in module.parameters())])
        module.zero_grad()
    if not all(torch.equal(a, b) for a, b in zip(*gradients, strict=True)):
        wrong.append("a backward pass under autocast")
    copied = copy.deepcopy(module)
    averaged = torch.optim.swa_utils.AveragedModel(module)
    for other in (copied, averaged.module):
        if other.group is not module.group or not torch.equal(other(x, target), module(x, target)):
            wrong.append("a copy")
    try:
        pickle.dumps(module.linear._members)
        wrong.append("a pickle")
    except TypeError as error:
        if "Save its state_dict() with torch.distributed.checkpoint" not in str(error):
            wrong.append(str(error))
    compiled = torch.compile(lambda x: module(x * 1.0, target), backend="eager")
    if not torch.equal(compiled(x), module(x, target)):
        wrong.append("a compiled model")
    probabilities = torch.full((8, len(module.shard)), 1.0 / 50)
    if float(loss_denominator(module, probabilities, gradients_averaged=False)) != 8.0 * size:
        wrong.append("a denominator of sharded probabilities")
    return wrong


def everything(rank: int, size: int, folder: str) -> dict[str, Any]:
    jobs: list[Callable[..., Any]] = [beside_the_whole, predictions, first_weights, communicated, kept]
    if size == 2:
        jobs += [narrow, disagreements]
    found = {job.__name__: job(rank, size) for job in jobs}
    found["checkpoint"] = saved(rank, size, folder) if size == 3 else loaded(rank, size, folder)
    return found
