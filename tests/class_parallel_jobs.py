"""The jobs that tests of sharded classes give to ranks: many cases in one process, as spawning takes seconds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from class_parallel_faults import disagreements
from torch import Tensor
from torch.nn import functional as F

import steelyard
from steelyard.distributed import class_parallel_cross_entropy
from steelyard.ops import reference

WIDTHS = {2: (5, 2), 3: (3, 0, 4), 4: (1, 4, 0, 2)}
"""Classes of each rank, of 7; where there are three or four ranks, one has none."""

CLASSES = 7
SHAPES = [(5, CLASSES), (2, CLASSES, 3), (CLASSES,), (1, CLASSES), (0, CLASSES), (3, CLASSES, 2, 2)]
REDUCTIONS: list[dict[str, Any]] = [
    {"reduction": "none"},
    {"reduction": "sum"},
    {"reduction": "mean"},
    {"reduction": "mean", "denominator": "weights", "empty": "zero"},
    {"reduction": "mean", "denominator": "samples"},
    {"reduction": "mean", "denominator": 3.5},
    {"reduction": "mean", "denominator": torch.tensor(0.0), "empty": "zero"},
]


def cases(every: int) -> Iterator[tuple[Any, ...]]:
    """The product of all settings, or each so-manieth of it, with a shape that moves on from case to case."""
    product = itertools.product(
        (False, True),  # soft
        (None, "whole", "shard"),  # weight
        (0.0, 0.1, 1.0),  # smoothing
        ("class", "target"),
        (None, "whole", "shard", "rows"),  # offset
        (False, True),  # sample weights
        ("some", "none", "all"),  # ignored rows
        range(len(REDUCTIONS)),
    )
    kept = (case for case in product if not case[0] or case[6] == "none")
    for number, case in enumerate(kept):
        if number % every == 0:
            yield number, *case, SHAPES[(number // every) % len(SHAPES)]


def part(values: Tensor, rank: int, widths: tuple[int, ...], dim: int) -> Tensor:
    return values.split(list(widths), dim)[rank].contiguous()


def product(rank: int, size: int, every: int) -> dict[str, Any]:
    """Every setting beside one full computation in float64; the errors, and how many cases there were."""
    widths = WIDTHS[size]
    generator = torch.Generator().manual_seed(7)
    worst, count, wrong = 0.0, 0, []
    for number, soft, weighted, smoothing, smooth_weight, shifted, row_weights, ignored, how, shape in cases(every):
        dim = 0 if len(shape) == 1 else 1
        rows = tuple(n for axis, n in enumerate(shape) if axis != dim)

        def randn(*sizes: int) -> Tensor:
            return torch.randn(sizes, dtype=torch.float64, generator=generator)

        x = 3.0 * randn(*shape)
        if soft:
            target = randn(*shape).softmax(dim)
            target[(slice(None),) * dim + (2,)] = 0.0  # neither normalised nor positive
        else:
            target = torch.randint(CLASSES, rows, generator=generator)
            if ignored == "all":
                target.fill_(-100)
            elif ignored == "some" and target.dim():
                target[:1] = -100
        options = {"label_smoothing": smoothing, "smooth_weight": smooth_weight, **REDUCTIONS[how]}
        own = dict(options)
        full_x, local_x = x.clone().requires_grad_(), part(x, rank, widths, dim).requires_grad_()
        z = full_x
        if weighted is not None:
            weight = randn(CLASSES).exp()
            weight[number % CLASSES] = 0.0
            options["weight"] = weight
            own["weight"] = weight if weighted == "whole" else part(weight, rank, widths, 0)
        if shifted == "rows":
            offset = randn(*shape)
            z, own["logit_offset"] = full_x + offset, part(offset, rank, widths, dim)
        elif shifted is not None:
            offset = randn(CLASSES)
            options["logit_offset"] = offset
            own["logit_offset"] = offset if shifted == "whole" else part(offset, rank, widths, 0)
        if row_weights:
            options["sample_weight"] = own["sample_weight"] = randn(*rows).exp()
        expected = steelyard.functional.cross_entropy(z, target, **options)
        found = class_parallel_cross_entropy(local_x, part(target, rank, widths, dim) if soft else target, **own)
        upstream = randn(*expected.shape)
        expected.backward(upstream)
        found.backward(upstream)
        for a, b in ((found, expected), (local_x.grad, part(full_x.grad, rank, widths, dim))):
            count += 1
            same = torch.allclose(a, b, rtol=1e-10, atol=1e-10, equal_nan=True) and a.shape == b.shape
            if not same:
                wrong.append((number, shape, options, own, a, b))
            elif a.numel() and not a.isnan().any():
                worst = max(worst, (a - b).abs().max().item())
    return {"worst": worst, "count": count, "wrong": wrong[:3]}


def derivatives(rank: int, size: int) -> list[Any]:
    """First and second derivatives with respect to everything that can have one, beside those of the whole."""
    generator, wrong = torch.Generator().manual_seed(11), []

    def randn(*sizes: int) -> Tensor:
        return torch.randn(sizes, dtype=torch.float64, generator=generator)

    all_on_one = (0,) * (size - 1) + (CLASSES,)
    for widths, soft, smooth_weight, whole, rule in itertools.product(
        (WIDTHS[size], all_on_one), (False, True), ("class", "target"), (False, True), ("torch", "weights")
    ):
        target = randn(4, CLASSES).softmax(1) if soft else torch.tensor([0, 6, -100, 3])
        full = {
            "logits": randn(4, CLASSES), "weight": randn(CLASSES).exp(),
            "offset": randn(CLASSES), "rows": randn(4).exp(),
        }  # fmt: skip
        if soft:
            full["target"] = target
        dims = {"logits": 1, "target": 1} | ({} if whole else {"weight": 0, "offset": 0})
        local = {n: part(v, rank, widths, dims[n]) if n in dims else v.clone() for n, v in full.items()}
        for learned in (("logits",), tuple(full)):
            results = []
            for given, loss in (
                (full, steelyard.functional.cross_entropy),
                (local, class_parallel_cross_entropy),
            ):
                leaves = {n: v.detach().clone().requires_grad_(n in learned) for n, v in given.items()}
                value = loss(
                    leaves["logits"], leaves.get("target", target), leaves["weight"], label_smoothing=0.3,
                    logit_offset=leaves["offset"], sample_weight=leaves["rows"], smooth_weight=smooth_weight,
                    denominator=rule,
                )  # fmt: skip
                asked = [leaves[n] for n in learned]
                first = torch.autograd.grad(value.square(), asked, create_graph=True)
                # What ranks hold of it in shards is added up by the library, what they hold alike is the same number.
                penalty = sum(g.pow(3).sum() for g in first)
                second = torch.autograd.grad(penalty, asked)
                results.append((value, *first, *second))
            names = ("loss", *learned, *learned)
            for position, (name, a, b) in enumerate(zip(names, *results, strict=True)):
                b_here = part(a, rank, widths, dims[name]) if name in dims else a
                if not torch.allclose(b_here, b, rtol=1e-10, atol=1e-10):
                    wrong.append((soft, smooth_weight, whole, rule, learned, name, position, b_here, b))
    return wrong


def same_as_whole(rank: int, size: int) -> list[Any]:
    """Rows that no random logits hold, beside the whole computation; what differs."""
    inf, nan = torch.inf, torch.nan
    widths, wrong = WIDTHS[size], []
    x = torch.tensor(
        [
            [1e4, -1e4, 0.0, 3.0, 1e4, 2.0, 1.0],
            [
                -inf,
                -inf,
                -inf,
                1.0,
                2.0,
                3.0,
                4.0,
            ],  # the first rank of any size has nothing but −inf, of three at least
            [1.0, 2.0, 3.0, -inf, -inf, -inf, -inf],
            [-inf] * 7,
            [1.0, nan, 3.0, 4.0, 5.0, 6.0, 7.0],
            [1.0, 2.0, 3.0, 4.0, inf, 6.0, 7.0],
            [-1e4] * 7,
            [nan, inf, -inf, 0.0, 0.0, 0.0, 0.0],  # ignored
            [-2e4, -1e4, -inf, -inf, -inf, -inf, -inf],
        ],
        dtype=torch.float64,
    )
    target = torch.tensor([3, 6, 0, 1, 0, 0, 5, -100, 1])
    weight = torch.tensor([1.0, 0.5, 2.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    for smoothing, weights, dtype, by in itertools.product(
        (0.0, 0.2), (None, weight), (torch.int64, torch.int16), ("class", "target")
    ):
        options = {"label_smoothing": smoothing, "smooth_weight": by, "reduction": "none"}
        local = part(x, rank, widths, 1).requires_grad_()
        settings = (weights, None, None, None, 0.0, smoothing, by == "target", -100)
        a, maximum, total = reference.softmax_loss(x, target, *settings)
        gradient = reference.softmax_loss_backward(torch.ones_like(a), x, target, maximum, total, *settings)
        b = class_parallel_cross_entropy(local, target.to(dtype), weights, **options)
        b.sum().backward()
        for p, q in ((a, b), (part(gradient, rank, widths, 1), local.grad)):
            if not torch.allclose(p, q, rtol=1e-10, atol=1e-10, equal_nan=True):
                wrong.append((options, weights, p, q))
    # An ignored label that is one of the classes.
    for options in ({}, {"label_smoothing": 0.1}, {"reduction": "none"}):
        options |= {"ignore_index": 3, "weight": weight + 1.0}
        full, local = x[:1].repeat(3, 1).requires_grad_(), part(x[:1].repeat(3, 1), rank, widths, 1).requires_grad_()
        a = steelyard.functional.cross_entropy(full, target[:3], **options)
        b = class_parallel_cross_entropy(local, target[:3], **options)
        a.sum().backward()
        b.sum().backward()
        same = torch.allclose(part(full.grad, rank, widths, 1), local.grad, rtol=1e-10, atol=1e-10)
        if not same or not torch.allclose(a, b, rtol=1e-10):
            wrong.append((options, a, b))
    # A mask that rules classes out, as an offset, under targets that give them no mass.
    mask = torch.tensor([0.0, -inf, 0.0, 0.0, -inf, -inf, 0.0], dtype=torch.float64)
    soft = torch.tensor([[0.5, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    plain = torch.arange(7.0, dtype=torch.float64)[None]
    expected = steelyard.functional.cross_entropy(plain, soft, logit_offset=mask)
    found = class_parallel_cross_entropy(part(plain, rank, widths, 1), part(soft, rank, widths, 1), logit_offset=mask)
    if not torch.allclose(expected, found, rtol=1e-12):
        wrong.append((expected, found))
    # One class, on the last rank; labels of 8 bits, of which 156 is −100.
    only = torch.tensor([[2.0], [3.0]]).repeat(1, int(rank == size - 1))
    if class_parallel_cross_entropy(only, torch.zeros(2, dtype=torch.uint8)).item() != 0.0:
        wrong.append("one class")
    each = [200 - 10 * (size - 1)] + [10] * (size - 1)
    wide = torch.linspace(-1, 1, 200, dtype=torch.float64)[None]
    found = class_parallel_cross_entropy(part(wide, rank, tuple(each), 1), torch.tensor([156], dtype=torch.uint8))
    if not torch.allclose(found, F.cross_entropy(wide, torch.tensor([156])), rtol=1e-12):
        wrong.append("uint8")
    return wrong


def half(rank: int, size: int) -> dict[str, tuple[Tensor, ...]]:
    """Losses and gradients in narrow dtypes, to be judged in the process that started the ranks."""
    results = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for number, rows in enumerate(narrow_rows(dtype)):
            width = rows["input"].shape[1]
            cut = tuple([width // size + 1] * (size - 1) + [width - (size - 1) * (width // size + 1)])
            x = part(rows["input"], rank, cut, 1).requires_grad_()
            soft = rows["target"].is_floating_point()
            loss = class_parallel_cross_entropy(
                x, part(rows["target"], rank, cut, 1) if soft else rows["target"], rows["weight"],
                sample_weight=rows["row_weight"], logit_offset=rows["offset"], label_smoothing=rows["smoothing"],
                smooth_weight="target" if rows["smooth_by_target"] else "class", reduction="none",
            )  # fmt: skip
            loss.backward(rows["upstream"].to(loss.dtype))
            results[f"{dtype} {number}"] = (loss.detach(), x.grad)
    return results


def narrow_rows(dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """Arguments of the softmax formula; upstream gradients that ``dtype`` holds exactly."""
    generator = torch.Generator().manual_seed(13)
    for soft, weighted, smoothing, by_target in itertools.product(
        (False, True), (False, True), (0.0, 0.1), (False, True)
    ):
        if by_target and not weighted:
            continue
        logits = (8.0 * torch.randn(24, 517, generator=generator)).to(dtype)
        yield {
            "input": logits,
            "target": torch.randn(24, 517, generator=generator).softmax(1) if soft
            else torch.randint(517, (24,), generator=generator),
            "upstream": torch.randn(24, generator=generator).to(dtype),
            "weight": torch.randn(517, generator=generator).exp() if weighted else None,
            "row_weight": torch.randn(24, generator=generator).exp() if weighted else None,
            "offset": torch.randn(517, generator=generator) if weighted else None,
            "smoothing": smoothing,
            "smooth_by_target": by_target,
        }  # fmt: skip


@contextmanager
def counted() -> Iterator[list[tuple[str, int]]]:
    """Every collective that is started, with the bytes that a rank puts into it."""
    calls: list[tuple[str, int]] = []
    found = {name: getattr(dist, name) for name in ("all_reduce", "all_gather")}

    def counting(name: str) -> Callable[..., Any]:
        def collective(first: Any, *rest: Any, **options: Any) -> Any:
            own = rest[0] if name == "all_gather" else first
            calls.append((name, own.numel() * own.element_size()))
            return found[name](first, *rest, **options)

        return collective

    try:
        for name in found:
            setattr(dist, name, counting(name))
        yield calls
    finally:
        for name, function in found.items():
            setattr(dist, name, function)


def communicated(rank: int, size: int) -> dict[Any, list[tuple[str, int]]]:
    """Collectives of one forward and one backward pass, by setting and number of classes."""
    found = {}
    settings: dict[str, dict[str, Any]] = {
        "plain": {},
        "weight": {"weight": True},
        "weight by target": {"weight": True, "label_smoothing": 0.1, "smooth_weight": "target"},
        "smoothed weight": {"weight": True, "label_smoothing": 0.1},
    }
    for classes, (label, setting), soft in itertools.product((8, 4096), settings.items(), (False, True)):
        setting = dict(setting)
        if setting.pop("weight", False):
            setting["weight"] = torch.ones(classes)
        width = classes // size
        logits = torch.zeros(10, width if rank else classes - width * (size - 1), requires_grad=True)
        target = torch.full_like(logits, 1.0 / classes).detach() if soft else torch.arange(10) % 8
        with counted() as calls:
            class_parallel_cross_entropy(logits, target, **setting).backward()
        found[classes, label, soft] = list(calls)
    return found


def without_classes(rank: int, size: int) -> list[str]:
    """A rank without classes gives an empty tensor that no gradient is asked of, and goes along all the same."""
    generator, wrong = torch.Generator().manual_seed(5), []
    for rows, learned in itertools.product((4, 6), (False, True)):
        x = torch.randn(rows, 6, dtype=torch.float64, generator=generator)
        w, target = (
            torch.rand(6, dtype=torch.float64, generator=generator),
            torch.randint(6, (rows,), generator=generator),
        )
        widths = [3, 3, 0] if size == 3 else [6, 0]
        local = part(x, rank, widths, 1)
        local = local.clone().requires_grad_() if local.shape[1] else local
        ours, whole = w.clone().requires_grad_(learned), w.clone().requires_grad_(learned)
        full = x.clone().requires_grad_()
        class_parallel_cross_entropy(local, target, ours, label_smoothing=0.1).backward()
        steelyard.functional.cross_entropy(full, target, whole, label_smoothing=0.1).backward()
        pairs = [(local.grad, part(full.grad, rank, widths, 1))] if local.requires_grad else []
        pairs += [(ours.grad, whole.grad)] if learned else []
        wrong += [f"{rows} {learned}" for p, q in pairs if not torch.allclose(p, q, rtol=1e-10, atol=1e-12)]
    return wrong


def unexchanged(rank: int, size: int) -> dict[str, Any]:
    """With ``shards``, as on a device that the host would have to wait for: nothing is compared on the host."""
    from steelyard.distributed import _agreement, _group

    kept = _group.reading_waits, _agreement.readable
    _group.reading_waits, _agreement.readable = (lambda device: True), (lambda tensor: False)
    try:
        widths = WIDTHS[size]
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(4, CLASSES, dtype=torch.float64, generator=generator)
        local, target = part(x, rank, widths, 1), torch.tensor([0, 6, 1, 2])
        odd = rank == size - 1
        with counted() as calls:
            weight = torch.rand(CLASSES, generator=generator)
            found = {
                "same": class_parallel_cross_entropy(local, target, weight, label_smoothing=0.1, shards=widths),
                "composed": class_parallel_cross_entropy(
                    local, target, weight.requires_grad_(), label_smoothing=0.1, shards=widths
                ),
            }
        expected = steelyard.functional.cross_entropy(x, target, weight, label_smoothing=0.1)
        for learned in (False, True):
            weight = weight.detach().requires_grad_(learned)
            for label, options in {
                "labels": {"target": target.roll(1) if odd else target},
                "smoothing": {"label_smoothing": 0.1 if odd else 0.2},
            }.items():
                options = {"target": target, **options}
                found[label, learned] = class_parallel_cross_entropy(local, weight=weight, shards=widths, **options)
        return {
            "expected": expected.item(), "calls": calls, **{label: value.item() for label, value in found.items()},
        }  # fmt: skip
    finally:
        _group.reading_waits, _agreement.readable = kept


def dtensors(rank: int, size: int) -> dict[str, Any]:
    """DTensors under tensor parallelism, beside the whole and beside PyTorch's own loss_parallel."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.parallel import loss_parallel

    mesh, wrong = init_device_mesh("cpu", (size,)), []
    generator = torch.Generator().manual_seed(17)
    loss = class_parallel_cross_entropy
    for classes, placement in ((8, Shard(1)), (5, Shard(-1))):  # of four ranks, the last has none of five
        x = torch.randn(6, classes, dtype=torch.float64, generator=generator)
        weight = torch.rand(classes, dtype=torch.float64, generator=generator)
        target = torch.randint(classes, (6,), generator=generator)
        soft = torch.rand(6, classes, dtype=torch.float64, generator=generator)
        for y, w, smoothing in itertools.product((target, soft), (None, weight), (0.0, 0.1)):
            full = x.clone().requires_grad_()
            expected = steelyard.functional.cross_entropy(full, y, w, label_smoothing=smoothing)
            expected.backward()
            sharded = y is soft
            for as_dtensor in (False, True):
                logits = distribute_tensor(x, mesh, [placement]).requires_grad_()
                given = distribute_tensor(y, mesh, [Shard(1) if sharded else Replicate()])
                if not as_dtensor:
                    given = given.to_local()
                v = w if w is None or not as_dtensor else distribute_tensor(w, mesh, [Shard(0)])
                found = loss(logits, given, v, label_smoothing=smoothing)
                found.backward()
                same = torch.allclose(logits.grad.full_tensor(), full.grad, rtol=1e-10, atol=1e-12)
                if type(found) is not Tensor or not same or not torch.allclose(found, expected, rtol=1e-10):
                    wrong.append((classes, sharded, w, smoothing, as_dtensor, found, expected))
            if smoothing == 0.0 and not sharded and classes % size == 0:
                logits = distribute_tensor(x, mesh, [Shard(1)]).requires_grad_()
                with loss_parallel():
                    theirs = F.cross_entropy(logits, target, None if w is None else w)
                    theirs.backward()
                same = torch.allclose(logits.grad.full_tensor(), full.grad, rtol=1e-10, atol=1e-12)
                if not same or not torch.allclose(theirs.full_tensor(), expected, rtol=1e-10):
                    wrong.append(("loss_parallel", w, theirs, expected))
    if size == 4:  # two axes: rows replicated over one, classes over the other
        grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "classes"))
        logits = distribute_tensor(x, grid, [Replicate(), Shard(1)])
        if not torch.allclose(loss(logits, target), steelyard.functional.cross_entropy(x, target)):
            wrong.append("a mesh of two axes")
    single = distribute_tensor(x[0], mesh, [Shard(0)])
    if not torch.allclose(loss(single, target[0]), F.cross_entropy(x[0], target[0])):
        wrong.append("one row")
    other = init_device_mesh("cpu", (size,), mesh_dim_names=("other",))
    split = distribute_tensor(x, mesh, [Shard(1)])
    told = []
    for call in (
        lambda: loss(distribute_tensor(x, mesh, [Shard(0)]), target),
        lambda: loss(distribute_tensor(x, mesh, [Replicate()]), target),
        lambda: loss(DTensor.from_local(x, mesh, [Partial()]), target),
        lambda: loss(split, target, group=dist.group.WORLD),
        lambda: loss(split, distribute_tensor(soft, mesh, [Replicate()])),
        lambda: loss(split, distribute_tensor(target.repeat(size), mesh, [Shard(0)])),
        lambda: loss(split, target, distribute_tensor(weight, other, [Shard(0)])),
        lambda: loss(x, distribute_tensor(target, mesh, [Replicate()])),
        lambda: loss(split, target, shards=[2] * size),
    ):
        try:
            told.append(f"{call()}")
        except Exception as error:
            told.append(f"{type(error).__name__}: {error}")
    return {"wrong": wrong, "told": told}


EVERY = {2: 23, 3: 5, 4: 29}
"""No multiple of 7, so that every reduction comes up: of three ranks, with each combination of all other settings."""


def everything(rank: int, size: int) -> dict[str, Any]:
    """All jobs that make sense for this many ranks."""
    jobs: dict[str, Callable[..., Any]] = {"same_as_whole": same_as_whole, "communicated": communicated}
    found: dict[str, Any] = {"product": product(rank, size, EVERY[size])}
    if size == 2:
        jobs |= {"half": half, "derivatives": derivatives, "without_classes": without_classes}
    if size == 3:
        jobs |= {
            "without_classes": without_classes,
            "derivatives": derivatives,
            "disagreements": disagreements,
            "unexchanged": unexchanged,
        }
    if size == 4:
        jobs |= {"dtensors": dtensors}
    return found | {name: job(rank, size) for name, job in jobs.items()}
