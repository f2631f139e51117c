"""A step of Lightning is that of the one full batch, on one process and on two, and so is what it logs."""

from __future__ import annotations

from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import ranks
import torch
import trainer_jobs as jobs
from torch import Tensor, nn
from torch.utils.data import DataLoader

import steelyard
from steelyard.trainers import lightning as trainers
from steelyard.trainers.lightning import ExactMean

EXACT = {"rtol": 0.0, "atol": 1e-10}


@pytest.fixture(scope="module")
def two() -> list[dict[Any, Any]]:
    """What two ranks have found."""
    return ranks.run(jobs.lightning_cases, 2)


def wide(numbers: list[Any]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def agrees(found: tuple[Tensor, list[float]], name: str, steps: int) -> None:
    options = jobs.LIGHTNING_CASES[name]
    data = jobs.Rows(options.get("tokens", False), options.get("weighted", False))
    rate = jobs.RATE / 2 if name == "halved" else jobs.RATE
    parameters, losses = jobs.wanted(data, jobs.BLOCKS[steps], options.get("gradient_clip_val", 0.0), rate)
    torch.testing.assert_close(found[0], parameters, **EXACT)
    torch.testing.assert_close(wide(found[1]), wide(losses), **EXACT)


@pytest.mark.parametrize("steps", jobs.BLOCKS)
@pytest.mark.parametrize("name", jobs.LIGHTNING_CASES)
def test_a_step_is_that_of_the_full_batch(name: str, steps: int) -> None:
    agrees(jobs.lightning_run(1, steps, **jobs.LIGHTNING_CASES[name])[:2], name, steps)


@pytest.mark.parametrize("steps", jobs.BLOCKS)
@pytest.mark.parametrize("name", jobs.LIGHTNING_CASES)
def test_two_ranks_take_the_step_of_the_full_batch(name: str, steps: int, two: list[dict[Any, Any]]) -> None:
    for rank in two:
        agrees(rank[name, steps], name, steps)


def test_the_plain_way_is_another_loss(two: list[dict[Any, Any]]) -> None:
    for found, steps in [(jobs.lightning_run(1, 3, plain=True), 3)] + [(two[0]["plain", k], k) for k in jobs.BLOCKS]:
        assert (found[0] - jobs.wanted(jobs.Rows(), jobs.BLOCKS[steps])[0]).abs().max() > 0.1


def test_the_shares_that_training_sees_have_the_size_of_means(two: list[dict[Any, Any]]) -> None:
    """With one micro-batch a step, the provisional denominator is the right one."""
    shares = wide([rank["seen"] for rank in two])
    torch.testing.assert_close(shares.mean(0), wide(jobs.wanted(jobs.Rows(), jobs.BLOCKS[1])[1]), **EXACT)


def test_the_manual_step(two: list[dict[Any, Any]]) -> None:
    parameters, _ = jobs.wanted(jobs.Rows(), jobs.BLOCKS[3])
    for found in (jobs.lightning_by_hand(1), *(rank["by hand"] for rank in two)):
        torch.testing.assert_close(found, parameters, **EXACT)


@pytest.mark.parametrize("pl", [lightning.pytorch, pytorch_lightning], ids=lambda pl: pl.__name__)
def test_both_names_of_lightning(pl: Any) -> None:
    agrees(jobs.lightning_run(1, 3, pl=pl)[:2], "rows", 3)


# -------------------------------------------------------------------------------- what training steps do


def unlogged(module: Any, batch: Any, number: int) -> Tensor:
    """A metric on the side, and the loss in two calls."""
    with torch.no_grad():
        module.value(batch)
    first, second = ({name: values[part] for name, values in batch.items()} for part in (slice(0, 1), slice(1, None)))
    return module.value(first) + module.value(second)


def test_a_loss_may_be_called_in_pieces_and_without_a_gradient() -> None:
    agrees(jobs.lightning_run(1, 3, doing=unlogged)[:2], "rows", 3)


@pytest.mark.parametrize("dropped", [[0], [1], [2], [0, 1, 2]])
def test_a_batch_that_is_passed_over_does_not_count(dropped: list[int]) -> None:
    def doing(module: Any, batch: Any, number: int) -> Any:
        value = module.value(batch)
        return None if number in dropped else value

    found, said, _ = jobs.lightning_run(1, 3, doing=doing)
    data = jobs.Rows()
    for number in dropped:
        data.labels[4 * number : 4 * number + 4] = -100
    parameters, losses = jobs.wanted(data, jobs.BLOCKS[3])
    torch.testing.assert_close(found, parameters, **EXACT)
    # Lightning reads what was logged after a batch, and nothing is logged after one that returns nothing.
    torch.testing.assert_close(wide(said[-2:]), wide(losses[-2:]), **EXACT)


def test_an_optimizer_that_asks_again_for_the_loss() -> None:
    found, _, _ = jobs.lightning_run(1, 1, optimizer=torch.optim.LBFGS)
    net, data, criterion = jobs.Net(), jobs.Rows(), jobs.loss()
    optimizer = torch.optim.LBFGS(net.parameters(), jobs.RATE)
    for x, y in zip(data.x.split(4), data.labels.split(4), strict=True):

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            value = criterion(net.layer(x), y)
            value.backward()
            return value

        optimizer.step(closure)
    torch.testing.assert_close(found, jobs.flat(net), **EXACT)


def penalised(module: Any, batch: Any, number: int) -> Tensor:
    return module.value(batch) + module.net.layer.weight.square().sum()


def another(module: Any, batch: Any, number: int) -> Tensor:
    return module.net(batch["x"])["logits"].square().mean()


def one_of_two(module: Any, batch: Any, number: int) -> Tensor:
    module.value(batch)
    return module.value(batch)


@pytest.mark.parametrize(("doing", "calls"), [(penalised, 1), (another, 0), (one_of_two, 2)])
def test_another_term_beside_the_loss_is_refused(doing: Any, calls: int) -> None:
    with pytest.raises(ValueError, match=f"ExactMean: training_step must return .* after {calls} calls of Cross"):
        jobs.lightning_run(1, 3, doing=doing)


def test_a_denominator_of_the_callers_own_is_refused() -> None:
    def doing(module: Any, batch: Any, number: int) -> Tensor:
        return module.loss(module.net(batch["x"])["logits"], batch["labels"], denominator=3.0)

    with pytest.raises(ValueError, match="'denominator' must be left out of the call of the loss; got float"):
        jobs.lightning_run(1, 3, doing=doing)


@pytest.mark.parametrize("number", [0, 1])
def test_a_wrong_label_is_told_at_the_call(number: int) -> None:
    def doing(module: Any, batch: Any, at: int) -> Tensor:
        return module.value({**batch, "labels": batch["labels"] + (200 if at == number else 0)})

    with pytest.raises(IndexError, match="'target' must be in"):
        jobs.lightning_run(1, 3, doing=doing)


def test_validation_is_left_alone_and_so_is_the_loss_afterwards() -> None:
    data = jobs.Rows()
    parts: list[Any] = []
    found, said, trainer = jobs.lightning_run(1, 3, validate=DataLoader(data, 20))
    agrees((found, said), "rows", 3)
    module = trainer.lightning_module
    for x, y in zip(data.x.split(20), data.labels.split(20), strict=True):
        parts.append(jobs.rows_in_step(module.net.layer(x), y, None).item())
    assert trainer.callback_metrics["val"].item() == pytest.approx(sum(parts) / 2, abs=1e-6)
    assert not module.loss._forward_pre_hooks
    assert not module.loss._forward_hooks
    whole = jobs.rows_in_step(module.net.layer(data.x), data.labels, None)
    torch.testing.assert_close(module.loss(module.net.layer(data.x), data.labels), whole, **EXACT)


def test_the_loss_is_left_alone_after_a_failure() -> None:
    held = jobs.loss()
    with pytest.raises(ValueError, match="training_step must return"):
        jobs.lightning_run(1, 3, doing=penalised, loss=held)
    assert not held._forward_pre_hooks


# -------------------------------------------------------------------------------- steps without anything


@pytest.mark.parametrize("empty", ["nan", "raise"])
def test_a_step_of_ignored_rows(empty: str) -> None:
    """As the loss of the full batch: NaN or an error; zero is what the other tests ask for."""
    if empty == "raise":
        with pytest.raises(ValueError, match="ExactMean: the mean must have something to divide by"):
            jobs.lightning_run(1, 1, loss=jobs.loss(empty=empty))
    else:
        assert jobs.lightning_run(1, 1, loss=jobs.loss(empty=empty))[0].isnan().all()


@pytest.mark.parametrize("empty", ["nan", "raise"])
def test_a_micro_batch_of_ignored_rows_is_nothing_special(empty: str) -> None:
    agrees(jobs.lightning_run(1, 3, loss=jobs.loss(empty=empty))[:2], "rows", 3)


def test_a_step_that_begins_with_ignored_rows() -> None:
    def doing(module: Any, batch: Any, number: int) -> Tensor:
        return module.value({**batch, "labels": torch.full_like(batch["labels"], -100) if number % 3 == 0 else
                             batch["labels"]})  # fmt: skip

    found, said, _ = jobs.lightning_run(1, 3, doing=doing, loss=jobs.loss(empty="nan"))
    data = jobs.Rows()
    for start in (0, 12, 24):
        data.labels[start : start + 4] = -100
    parameters, losses = jobs.wanted(data, jobs.BLOCKS[3])
    torch.testing.assert_close(found, parameters, **EXACT)
    torch.testing.assert_close(wide(said), wide(losses), **EXACT)


# -------------------------------------------------------------------------------- finding the loss


@pytest.mark.parametrize(
    ("held", "name", "words"),
    [
        (nn.CrossEntropyLoss(), None, "'loss' must be the one loss of steelyard.nn in Module; got none. Keep it as"),
        (nn.ModuleList([jobs.loss(), jobs.loss()]), None, "got CrossEntropyLoss, CrossEntropyLoss. Name the one"),
        (jobs.loss(), "criterion", "'loss' must be the name of a loss of Module; got 'criterion'"),
        (jobs.loss(), "net", "'loss' must be the one loss of steelyard.nn in Net; got none"),
        (jobs.loss(reduction="sum"), None, "reduction='mean'"),
        (jobs.loss(denominator=3.0), None, "whose denominator is a rule"),
    ],
)
def test_a_loss_that_cannot_be_meant(held: Any, name: str | None, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the words are compared below)
        jobs.lightning_run(1, 3, loss=held, name=name)
    assert words in str(caught.value)


def test_one_loss_of_two_is_named() -> None:
    def doing(module: Any, batch: Any, number: int) -> Tensor:
        return module.loss[1](module.net(batch["x"])["logits"], batch["labels"])

    two = nn.ModuleList([steelyard.nn.CrossEntropyLoss(), nn.Sequential(jobs.loss())])
    with pytest.raises(ValueError, match="Name the one"):
        jobs.lightning_run(1, 3, doing=doing, loss=two)
    module = jobs.lightning_module(lightning.pytorch, loss=two)
    module.main = two[1][0]
    assert trainers._found(module, "main") is two[1][0]


def test_late_weights_come_late() -> None:
    late = steelyard.nn.DeferredReweighting(jobs.loss(), start_epoch=1)
    early = jobs.lightning_run(1, 3, loss=late)[0]
    late.set_epoch(1)
    agrees(jobs.lightning_run(1, 3, loss=late)[:2], "rows", 3)
    assert (early - jobs.wanted(jobs.Rows(), jobs.BLOCKS[3])[0]).abs().max() > 0.1


def test_what_the_constructor_refuses() -> None:
    with pytest.raises(TypeError, match="ExactMean: 'loss' must be a name, or None; got CrossEntropyLoss"):
        ExactMean(jobs.loss())
    with pytest.raises(TypeError, match="ExactMean: 'log' must be a name, or None; got bool True"):
        ExactMean(log=True)


def test_a_manual_step_and_other_engines_are_refused() -> None:
    module = jobs.lightning_module(lightning.pytorch)
    trainer = lightning.pytorch.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.automatic_optimization = False
    with pytest.raises(ValueError, match="'automatic_optimization' must be True; got False"):
        ExactMean().on_fit_start(trainer, module)

    class Engine:
        pass

    class Other:
        strategy = Engine()

    with pytest.raises(ValueError, match="'strategy' must be a single device, DDP or FSDP; got Engine"):
        ExactMean().on_fit_start(Other(), module)
    from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy

    assert issubclass(DeepSpeedStrategy, DDPStrategy), "which keeps gradients in memory of its own"
    Other.strategy = object.__new__(DeepSpeedStrategy)
    with pytest.raises(ValueError, match="'strategy' must be a single device, DDP or FSDP; got DeepSpeedStrategy"):
        ExactMean().on_fit_start(Other(), module)


def test_a_rank_that_fails_in_any_way_takes_part_before_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Exception | None] = []

    def shared(name: str, group: Any, own: Tensor | None, failure: Exception | None) -> Tensor:
        told.append(failure)
        assert failure is not None
        raise failure

    monkeypatch.setattr(trainers._group, "shared_sum", shared)
    loss, callback = jobs.loss(), ExactMean()
    callback._training = True
    for arguments, kind in (((torch.zeros(2, 3), torch.zeros(2).long().to_sparse()), Exception), ((), TypeError)):
        with pytest.raises(kind):
            callback._before_loss(loss, arguments, {})
    assert len(told) == 2


# -------------------------------------------------------------------------------- the gradient


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_gradients_are_scaled_with_one_rounding(dtype: torch.dtype) -> None:
    parameter, idle = nn.Parameter(torch.zeros(100, dtype=dtype)), nn.Parameter(torch.zeros(1))
    parameter.grad = torch.randn(100, generator=torch.Generator().manual_seed(0)).to(dtype)
    wanted = (parameter.grad.double() * (1 / 3)).to(dtype)
    trainers._scale(torch.optim.SGD([parameter, idle]), torch.tensor(1 / 3, dtype=torch.float64))
    torch.testing.assert_close(parameter.grad, wanted, rtol=2.0**-23 if dtype == torch.float32 else 0.0, atol=0.0)
    assert idle.grad is None


def test_the_mean_of_the_last_step_is_kept() -> None:
    mean = ExactMean()
    jobs.fit(jobs.lightning_module(lightning.pytorch), 1, accumulate_grad_batches=3, callbacks=[mean])
    assert mean.mean.item() == pytest.approx(jobs.wanted(jobs.Rows(), jobs.BLOCKS[3])[1][-1], abs=1e-10)
