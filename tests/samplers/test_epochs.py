"""What every sampler promises of epochs, ranks and state."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import pytest
import torch
from sampler_kinds import KINDS, Make, batches, weighted
from torch.utils.data import DataLoader, DistributedSampler, Sampler, TensorDataset

from steelyard.ops import cpu

kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def epoch_of(make: Make, epoch: int, **options: Any) -> list[Any]:
    sampler = make(**options)
    sampler.set_epoch(epoch)
    return list(sampler)


def dealt(parts: list[list[Any]], total: int) -> list[Any]:
    """What ranks have, in the order of positions."""
    return [item for step in itertools.zip_longest(*parts) for item in step][:total]


@kinds
def test_items_are_python_ints_as_many_as_the_length(make: Make) -> None:
    sampler = make(seed=3)
    items = list(sampler)
    assert isinstance(sampler, Sampler)
    assert isinstance(sampler, DistributedSampler)
    assert len(items) == len(sampler) == sampler.num_samples
    flat = items if make is not batches else [row for batch in items for row in batch]
    assert {type(row) for row in flat} == {int}


@kinds
def test_the_same_seed_and_epoch_give_the_same_and_others_do_not(make: Make) -> None:
    assert epoch_of(make, 4, seed=3) == epoch_of(make, 4, seed=3)
    assert epoch_of(make, 4, seed=3) != epoch_of(make, 5, seed=3)
    assert epoch_of(make, 4, seed=3) != epoch_of(make, 4, seed=4)


@kinds
def test_without_set_epoch_iterators_take_the_epochs_in_turn(make: Make) -> None:
    sampler = make(seed=3)
    assert [list(sampler) for _ in range(3)] == [epoch_of(make, epoch, seed=3) for epoch in range(3)]
    assert sampler.epoch == 2
    next(iter(sampler))  # broken off
    assert list(sampler) == epoch_of(make, 4, seed=3)
    iter(sampler)  # never begun: it does not count
    assert list(sampler) == epoch_of(make, 5, seed=3)


@kinds
def test_a_sampler_says_where_it_stands(make: Make) -> None:
    alone = make(seed=3)
    alone.set_epoch(2)
    assert repr(alone) == f"{type(alone).__name__}(num_samples={alone.num_samples}, epoch=2, seed=3)"
    assert repr(make(seed=3, num_replicas=4, rank=1)).endswith("epoch=0, seed=3, rank=1 of 4)")


@kinds
def test_set_epoch_counts_from_there_on(make: Make) -> None:
    sampler = make(seed=3)
    list(sampler)
    sampler.set_epoch(7)
    assert sampler.epoch == 7
    assert list(sampler) == epoch_of(make, 7, seed=3)
    sampler.set_epoch(7)
    assert list(sampler) == epoch_of(make, 7, seed=3)
    assert list(sampler) == epoch_of(make, 8, seed=3)


@kinds
def test_indices_are_the_epoch_at_once(make: Make) -> None:
    sampler = make(seed=3)
    found = sampler.indices()
    assert found.dtype == torch.int64
    assert found.tolist() == epoch_of(make, 0, seed=3)
    assert list(sampler) == epoch_of(make, 1, seed=3)


@kinds
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_ranks_share_out_the_single_draw(make: Make, ranks: int) -> None:
    alone = epoch_of(make, 1, seed=3)
    parts = [epoch_of(make, 1, seed=3, num_replicas=ranks, rank=rank) for rank in range(ranks)]
    assert {len(part) for part in parts} == {-(-len(alone) // ranks)}
    assert len(make(seed=3, num_replicas=ranks, rank=0)) == len(parts[0])
    assert dealt(parts, len(alone)) == alone
    if make.__name__ == "without_replacement":
        everything = list(itertools.chain(*parts))
        assert len(set(everything)) == len(everything), "what is drawn on top is no row drawn before"


@kinds
def test_a_rank_computes_nothing_of_the_others(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = make(seed=3, num_replicas=4, rank=1)
    asked = []
    plan = sampler._plan(3, 0, 24)
    draw = plan.draw
    monkeypatch.setattr(
        plan, "draw", lambda first, step, count: asked.append((first, step, count)) or draw(first, step, count)
    )
    monkeypatch.setattr(sampler, "_plan", lambda *arguments: plan)
    list(sampler)
    assert {(first % 4, step) for first, step, _ in asked} == {(1, 4)}
    assert sum(count for _, _, count in asked) <= len(sampler)


@kinds
def test_resume_at_every_position_through_a_pickled_state(make: Make) -> None:
    whole = epoch_of(make, 2, seed=3)
    for position in range(len(whole) + 1):
        before = make(seed=3)
        before.set_epoch(2)
        given = list(itertools.islice(iter(before), position))
        state = pickle.loads(pickle.dumps(before.state_dict()))
        after = make(seed=3)
        after.load_state_dict(state)
        assert after.epoch == 2
        assert given + list(after) == whole
        assert list(after) == epoch_of(make, 3, seed=3)
        assert list(after.indices()) != whole


@kinds
@pytest.mark.parametrize("position", [0, 5, 20])
def test_a_pickled_sampler_goes_on_where_it_stood(make: Make, position: int) -> None:
    sampler = make(seed=3)
    whole = epoch_of(make, 0, seed=3)
    items = iter(sampler)
    given = list(itertools.islice(items, position))
    copy = pickle.loads(pickle.dumps(sampler))
    assert given + list(copy) == whole
    assert given + list(items) == whole
    assert list(copy) == list(sampler) == epoch_of(make, 1, seed=3)


@kinds
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 8), (8, 2)])
@pytest.mark.parametrize("given", [0, 1, 2])
def test_resume_with_another_number_of_ranks(make: Make, before: int, after: int, given: int) -> None:
    alone = epoch_of(make, 1, seed=3)
    samplers = [make(seed=3, num_replicas=before, rank=rank) for rank in range(before)]
    parts, states = [], []
    for sampler in samplers:
        sampler.set_epoch(1)
        parts.append(list(itertools.islice(iter(sampler), given)))
        states.append(sampler.state_dict())
    assert all(state == states[0] for state in states), "a state is the same for all ranks"
    others = [make(seed=3, num_replicas=after, rank=rank) for rank in range(after)]
    rest = []
    for sampler in others:
        sampler.load_state_dict(states[0])
        rest.append(list(sampler))
    assert len({len(part) for part in rest}) == 1
    done = dealt(parts, given * before)[: len(alone)]
    assert (done + dealt(rest, len(alone)))[: len(alone)] == alone


@kinds
def test_state_with_a_position_is_what_training_has_used(make: Make) -> None:
    whole = epoch_of(make, 0, seed=3)
    sampler = make(seed=3)
    list(itertools.islice(iter(sampler), 20))
    fresh = make(seed=3)
    fresh.load_state_dict(sampler.state_dict(position=8))
    assert list(fresh) == whole[8:]
    again = make(seed=3)
    again.load_state_dict(sampler.state_dict(position=8))
    list(itertools.islice(iter(again), 10))
    last = make(seed=3)
    last.load_state_dict(again.state_dict(position=4))  # counted from where it was resumed
    assert list(last) == whole[12:]
    list(sampler)
    last.load_state_dict(sampler.state_dict(position=len(whole)))
    assert list(last) == epoch_of(make, 2, seed=3)


@kinds
def test_a_position_is_within_what_the_iterator_has_given(make: Make) -> None:
    sampler = make(seed=3)
    items = iter(sampler)
    assert sampler.state_dict(position=0)["position"] == 0
    for given in range(3):
        with pytest.raises(
            ValueError,
            match=rf"\.state_dict: 'position' must be in \[0, {given}\], what the iterator at work has given; got int "
            rf"{given + 1}\. It counts from where that iterator began",
        ):
            sampler.state_dict(position=given + 1)
        next(items)
    resumed = make(seed=3)
    resumed.load_state_dict(sampler.state_dict())
    assert resumed.state_dict(position=0)["position"] == 3
    next(iter(resumed))
    assert resumed.state_dict(position=1)["position"] == 4
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        resumed.state_dict(position=4)


@kinds
def test_iterators_that_live_at_once_are_epochs_of_their_own(make: Make) -> None:
    """Loaders with workers make one that they throw away; what is thrown away unused is no epoch."""
    sampler = make(seed=3)
    iter(sampler)
    first, second = iter(sampler), iter(sampler)
    a = [next(first)]
    b = [next(second)]
    assert a + list(first) == epoch_of(make, 0, seed=3)
    assert b + list(second) == epoch_of(make, 1, seed=3)
    assert list(sampler) == epoch_of(make, 2, seed=3)


@kinds
def test_set_epoch_of_the_epoch_at_work_does_not_lose_its_position(make: Make) -> None:
    sampler = make(seed=3)
    items = iter(sampler)
    given = [next(items) for _ in range(7)]
    sampler.set_epoch(0)
    state = sampler.state_dict()
    assert (state["epoch"], state["position"]) == (0, 7)
    fresh = make(seed=3)
    fresh.load_state_dict(state)
    assert given + list(fresh) == epoch_of(make, 0, seed=3)
    sampler.set_epoch(4)
    assert (sampler.epoch, sampler.state_dict()["position"]) == (4, 0)
    assert given + list(items) == epoch_of(make, 0, seed=3), "an iterator at work goes on"
    assert list(sampler) == epoch_of(make, 4, seed=3)


@kinds
def test_an_iterator_goes_back_to_a_state_of_its_own(make: Make) -> None:
    """As torchdata's loader has it: the iterator is saved, and the sampler goes on from the epoch after."""
    sampler = make(seed=3)
    items = iter(sampler)
    given = [next(items) for _ in range(5)]
    state = pickle.loads(pickle.dumps(items.state_dict()))  # type: ignore[attr-defined]
    other = make(seed=3)
    resumed = iter(other)
    resumed.load_state_dict(state)  # type: ignore[attr-defined]
    assert other.state_dict()["position"] == 5
    assert given + list(resumed) == epoch_of(make, 0, seed=3)
    assert list(other) == epoch_of(make, 1, seed=3)


@kinds
def test_set_epoch_of_the_loaded_epoch_keeps_its_position(make: Make) -> None:
    sampler = make(seed=3)
    list(itertools.islice(iter(sampler), 9))
    fresh = make(seed=3)
    fresh.load_state_dict(sampler.state_dict())
    fresh.set_epoch(0)  # as a training loop does
    assert list(fresh) == epoch_of(make, 0, seed=3)[9:]
    fresh.load_state_dict(sampler.state_dict())
    fresh.set_epoch(1)
    assert list(fresh) == epoch_of(make, 1, seed=3)
    next(iter(fresh))
    fresh.load_state_dict(sampler.state_dict())  # amid another epoch
    assert fresh.state_dict() == sampler.state_dict()
    assert list(fresh) == epoch_of(make, 0, seed=3)[9:]


@kinds
def test_after_an_epoch_the_state_is_that_of_the_next(make: Make) -> None:
    sampler = make(seed=3)
    list(sampler)
    fresh = make(seed=3)
    fresh.load_state_dict(sampler.state_dict())
    assert list(fresh) == epoch_of(make, 1, seed=3)


@kinds
def test_the_reference_draws_the_same(make: Make) -> None:
    ours = epoch_of(make, 3, seed=3)
    with cpu.using("reference"):
        assert epoch_of(make, 3, seed=3) == ours


@kinds
def test_a_seed_may_come_from_a_generator(make: Make) -> None:
    first, second = (make(generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert [list(first) for _ in range(2)] == [list(second) for _ in range(2)]
    torch.manual_seed(1)
    a = list(make())
    torch.manual_seed(1)
    assert list(make()) == a
    assert list(make()) != a


@kinds
def test_a_state_without_a_seed_of_its_own_carries_the_one_in_use(make: Make) -> None:
    sampler = make()
    whole = list(pickle.loads(pickle.dumps(sampler)) if sampler.seed is not None else make(seed=1))
    items = iter(sampler)
    given = list(itertools.islice(items, 6))
    fresh = make()
    fresh.load_state_dict(sampler.state_dict())
    assert list(fresh) == list(items)
    assert len(given) + 17 == len(whole) or make.__name__ == "repeat_factor"


@kinds
def test_a_state_of_a_seeded_sampler_wants_its_seed(make: Make) -> None:
    state = make(seed=3).state_dict()
    with pytest.raises(ValueError, match=r"without a seed of its own; got seed = 3\. Make the sampler with seed=3"):
        make().load_state_dict(state)
    unseeded = make().state_dict()
    with pytest.raises(ValueError, match=r"of a sampler with seed = 3; got"):
        make(seed=3).load_state_dict(unseeded)


def test_pytorchs_global_generator_seeds_every_epoch_anew() -> None:
    torch.manual_seed(0)
    sampler = weighted()
    assert len({tuple(sampler) for _ in range(4)}) == 4


@kinds
def test_several_ranks_without_a_seed_agree(make: Make) -> None:
    torch.manual_seed(1)
    a = make(num_replicas=2, rank=0)
    torch.manual_seed(2)
    b = make(num_replicas=2, rank=1)
    assert dealt([list(a), list(b)], a.num_samples) == epoch_of(make, 0, seed=0)


@kinds
def test_large_epochs_are_drawn_in_blocks(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = epoch_of(make, 0, seed=3)
    sampler = make(seed=3)
    monkeypatch.setattr(sampler, "_block_size", 4)
    items = iter(sampler)
    given = [next(items) for _ in range(6)]
    assert len(items._block) <= 4  # type: ignore[attr-defined]
    fresh = make(seed=3)
    fresh.load_state_dict(sampler.state_dict())
    assert given + list(fresh) == whole
    assert given + list(items) == whole


BAD_STATES = [
    (lambda s: [], TypeError, "'state_dict' must be what state_dict"),
    (lambda s: {}, TypeError, "'state_dict' must be what state_dict"),
    (lambda s: {**s, "version": 9}, ValueError, "must be of version 1; got version 9"),
    (lambda s: {**s, "num_samples": 5}, ValueError, "num_samples = "),
    (lambda s: {**s, "sampler": "Other"}, ValueError, "sampler = "),
    (lambda s: {**s, "seed": 4}, ValueError, "seed = 3"),
    (lambda s: {**s, "seed": None}, ValueError, "seed = 3"),
    (lambda s: {**s, "options": dict.fromkeys(s["options"], "x")}, ValueError, "of a sampler with .* got 'x'"),
    (lambda s: {**s, "options": {}}, ValueError, "of a sampler with .* got None"),
    (lambda s: {**s, "data": s["data"] + 1, "position": 1}, ValueError, "of a sampler with the same (weights|labels)"),
    (lambda s: {k: v for k, v in s.items() if k != "data"}, TypeError, "must be what state_dict"),
    (lambda s: {**s, "position": -1}, ValueError, "zero or more"),
    (lambda s: {**s, "epoch": -1}, ValueError, "zero or more"),
    (lambda s: {**s, "epoch": "x"}, TypeError, "'epoch' must be an integer"),
]


@kinds
@pytest.mark.parametrize(("change", "error", "message"), BAD_STATES)
def test_a_state_of_something_else_is_refused(make: Make, change: Any, error: type[Exception], message: str) -> None:
    sampler = make(seed=3)
    name = type(sampler).__name__
    with pytest.raises(error, match=rf"^{name}\.load_state_dict: .*{message}"):
        sampler.load_state_dict(change(sampler.state_dict()))
    assert list(sampler) == epoch_of(make, 0, seed=3), "nothing has changed"


BAD_OPTIONS = [
    ({"seed": -1}, ValueError, "'seed' must be zero or more; got"),
    ({"seed": 1.5}, TypeError, "'seed' must be an integer"),
    ({"seed": True}, TypeError, "'seed' must be an integer"),
    ({"seed": 1, "generator": torch.Generator()}, ValueError, "'seed' must be None where there is a generator"),
    ({"generator": 5}, TypeError, "'generator' must be a torch.Generator or None"),
    ({"num_replicas": 2}, ValueError, "'rank' must be given where num_replicas is"),
    ({"rank": 0}, ValueError, "'num_replicas' must be given where rank is"),
    ({"num_replicas": 2, "rank": 2}, ValueError, r"'rank' must be in \[0, 2\)"),
    ({"num_replicas": 2, "rank": -1}, ValueError, r"'rank' must be in \[0, 2\)"),
    ({"num_replicas": 0, "rank": 0}, ValueError, "'num_replicas' must be 1 or more"),
    ({"num_replicas": "2", "rank": 0}, TypeError, "'num_replicas' must be an integer"),
]


@kinds
@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS)
def test_bad_options_are_refused(make: Make, options: dict[str, Any], error: type[Exception], message: str) -> None:
    name = type(make(seed=0)).__name__
    with pytest.raises(error, match=rf"^{name}: {message}"):
        make(**options)


@kinds
@pytest.mark.parametrize(("epoch", "error"), [(-1, ValueError), (2**32, ValueError), (0.5, TypeError)])
def test_bad_epochs_are_refused(make: Make, epoch: Any, error: type[Exception]) -> None:
    sampler = make(seed=0)
    with pytest.raises(error, match=r"\.set_epoch: 'epoch' must be "):
        sampler.set_epoch(epoch)


@kinds
@pytest.mark.parametrize("position", [-1, 10**6])
def test_bad_positions_are_refused(make: Make, position: int) -> None:
    with pytest.raises(ValueError, match=r"\.state_dict: 'position' must be in \[0, "):
        make(seed=0).state_dict(position=position)


@kinds
@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 1, "persistent_workers": True}], ids=str)
def test_in_a_data_loader(make: Make, options: dict[str, Any]) -> None:
    sampler = make(seed=3)
    data = TensorDataset(torch.arange(64))
    how = {"batch_sampler": sampler} if make is batches else {"sampler": sampler, "batch_size": 5}
    loader = DataLoader(data, **how, **options)
    for epoch in range(2):
        found = [rows.tolist() for (rows,) in loader]
        wanted = epoch_of(make, epoch, seed=3)
        assert (found if make is batches else list(itertools.chain(*found))) == wanted
        assert len(found) == len(loader)
