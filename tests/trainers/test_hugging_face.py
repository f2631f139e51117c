"""A Trainer's step is that of the one full batch, on one process and on two, and so is what it logs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import trainer_jobs as jobs
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import steelyard
from steelyard.samplers import BalancedBatchSampler, ClassBalancedSampler, WeightedRandomSampler
from steelyard.trainers import hugging_face

EXACT = {"rtol": 0.0, "atol": 1e-10}
LOGGED = {"rtol": 0.0, "atol": 1e-6}  # the Trainer adds losses up in float32


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks have found."""
    return ranks.run(jobs.hugging_face, 2, str(tmp_path_factory.mktemp("two")))


def agrees(found: tuple[Tensor, list[float]], name: str, steps: int) -> None:
    options = jobs.HF_CASES[name]
    data = jobs.Rows(options.get("tokens", False), "sample_weight_column" in options)
    parameters, losses = jobs.wanted(data, jobs.BLOCKS[steps], options.get("max_grad_norm", 0.0))
    torch.testing.assert_close(found[0], parameters, **EXACT)
    torch.testing.assert_close(torch.tensor(found[1]), torch.tensor(losses), **LOGGED)


def is_another_loss(found: tuple[Tensor, list[float]], steps: int) -> None:
    parameters, losses = jobs.wanted(jobs.Rows(), jobs.BLOCKS[steps])
    assert (found[0] - parameters).abs().max() > 0.1
    assert max(abs(a - b) for a, b in zip(found[1], losses, strict=True)) > 0.1


# -------------------------------------------------------------------------------- training


@pytest.mark.parametrize("steps", jobs.BLOCKS)
@pytest.mark.parametrize("name", jobs.HF_CASES)
def test_a_step_is_that_of_the_full_batch(name: str, steps: int, tmp_path: Path) -> None:
    agrees(jobs.hf_run(str(tmp_path), 1, steps, **jobs.HF_CASES[name]), name, steps)


@pytest.mark.parametrize("steps", jobs.BLOCKS)
@pytest.mark.parametrize("name", jobs.HF_CASES)
def test_two_ranks_take_the_step_of_the_full_batch(name: str, steps: int, two: list[dict[str, Any]]) -> None:
    for rank in two:
        agrees(rank["cases"][name, steps], name, steps)


def test_the_plain_way_is_another_loss(two: list[dict[str, Any]], tmp_path: Path) -> None:
    is_another_loss(jobs.hf_run(str(tmp_path), 1, 3, kind=jobs.plain_trainer()), 3)
    for steps in jobs.BLOCKS:
        is_another_loss(two[0]["cases"]["plain", steps], steps)


def test_the_page_says_how_far_off_the_plain_ways_are(tmp_path: Path) -> None:
    parameters, losses = jobs.wanted(jobs.Rows(), jobs.BLOCKS[3])
    plain = jobs.hf_run(str(tmp_path), 1, 3, kind=jobs.plain_trainer())
    lightning = jobs.lightning_run(1, 3, plain=True)
    off, also = ((found[0] - parameters).abs().max().item() for found in (plain, lightning))
    page = " ".join((Path(__file__).parents[2] / "docs/scale.md").read_text(encoding="utf-8").split())
    assert f"the first step of three micro-batches has a loss of {losses[0]:.2f}; the plain Trainer" in page
    assert f"logs {plain[1][0]:.2f}, and after three steps its parameters, of which the largest is " in page
    assert f"is {parameters.abs().max():.2f}, are off by {off:.2f} (Lightning's: by {also:.2f})" in page


def test_smoothing_of_the_trainers_own_is_refused_before_it_looks_at_the_model(tmp_path: Path) -> None:
    """Which it asks for a config."""
    arguments = jobs.hf_arguments(str(tmp_path), 1, 1, label_smoothing_factor=0.1)
    for given in ((jobs.Net(), arguments), (jobs.Net(),)):
        options = {} if len(given) == 2 else {"args": arguments}
        with pytest.raises(ValueError, match=r"'label_smoothing_factor' must be 0; got 0\.1\. Give the loss its"):
            hugging_face.Trainer(*given, loss=jobs.loss(), **options)


@pytest.mark.parametrize("steps", [1, 3])
def test_elements_of_many_labels(steps: int, tmp_path: Path) -> None:
    """Labels of the shape of the logits, and a denominator that is no number of rows."""
    data, net = jobs.Rows(), jobs.Net()
    target = torch.rand(jobs.ROWS, jobs.CLASSES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    data.labels = target.round() * (torch.arange(jobs.ROWS)[:, None] % 5 > 2)
    criterion = steelyard.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(jobs.WEIGHT), denominator="weights")
    found, _, _ = one_epoch(net, data, criterion, tmp_path, steps)
    plain, weight = jobs.Net(), torch.tensor(jobs.WEIGHT, dtype=torch.float64)
    optimizer = torch.optim.SGD(plain.parameters(), jobs.RATE)
    for x, y in zip(data.x.split(jobs.BLOCKS[steps]), data.labels.split(jobs.BLOCKS[steps]), strict=True):
        optimizer.zero_grad()
        total = binary_cross_entropy_with_logits(plain.layer(x), y, pos_weight=weight, reduction="sum")
        (total / (1 + (weight - 1) * y).sum()).backward()
        optimizer.step()
    torch.testing.assert_close(found, jobs.flat(plain), **EXACT)


def one_epoch(net: Any, data: Any, criterion: Any, folder: Path, steps: int, **options: Any) -> Any:
    optimizer = torch.optim.SGD(net.parameters(), jobs.RATE)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    arguments = jobs.hf_arguments(str(folder), 1, steps)
    kind = options.pop("kind", hugging_face.Trainer)
    trainer = kind(net, arguments, train_dataset=data, optimizers=(optimizer, rate), loss=criterion, **options)
    trainer.train()
    return jobs.flat(net), [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], trainer


class Tokens(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Ids, and labels that are another number of them in each row."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(2)
        self.ids = torch.randint(jobs.CLASSES, (10, 6), generator=generator)
        self.labels = torch.randint(jobs.CLASSES, (10, 6), generator=generator)
        self.labels[torch.arange(6) > torch.arange(10)[:, None] % 6] = -100

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"input_ids": self.ids[i], "labels": self.labels[i]}


def tiny(kind: str) -> Any:
    """A model of transformers, from its configuration."""
    import transformers

    torch.manual_seed(7)
    size = {"vocab_size": jobs.CLASSES, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 8}  # fmt: skip
    if kind == "causal":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**size, bos_token_id=0, eos_token_id=0)).double()
    config = transformers.BertConfig(
        **size, num_labels=jobs.CLASSES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    return transformers.BertForTokenClassification(config).double()


@pytest.mark.parametrize(("kind", "shift"), [("causal", None), ("tokens", None), ("tokens", True), ("causal", False)])
def test_models_of_transformers(kind: str, shift: bool | None, tmp_path: Path) -> None:
    """Among them a causal one, whose logits are for the next label unless somebody says otherwise."""
    data, weight = Tokens(), torch.tensor(jobs.WEIGHT, dtype=torch.float64)
    found, said, _ = one_epoch(tiny(kind), data, jobs.loss(label_smoothing=0.0), tmp_path, 3, shift_labels=shift)
    model, losses = tiny(kind).train(), []
    optimizer = torch.optim.SGD(model.parameters(), jobs.RATE)
    optimizer.zero_grad()
    logits, labels = model(input_ids=data.ids)["logits"], data.labels  # one step of 4, 4 and 2 rows
    if shift or (shift is None and kind == "causal"):
        logits, labels = logits[:, :-1], labels[:, 1:]
    value = cross_entropy(logits.flatten(0, 1), labels.flatten(), weight)
    value.backward()
    losses.append(value.item())
    optimizer.step()
    torch.testing.assert_close(found, jobs.flat(model), **EXACT)
    torch.testing.assert_close(torch.tensor(said), torch.tensor(losses), **LOGGED)


# -------------------------------------------------------------------------------- evaluation


def test_the_evaluation_loss_is_one_mean(tmp_path: Path) -> None:
    data = jobs.Rows()
    true = jobs.rows_in_step(jobs.Net().layer(data.x), data.labels, None).item()
    for batch in (1, 5, 32):
        arguments = jobs.hf_arguments(str(tmp_path), 1, 1)
        arguments.per_device_eval_batch_size = batch
        trainer = hugging_face.Trainer(jobs.Net(), arguments, eval_dataset=data, loss=jobs.loss())
        assert trainer.evaluate()["eval_loss"] == pytest.approx(true, abs=1e-10)


def test_an_evaluation_of_ignored_rows_is_what_the_loss_says(tmp_path: Path) -> None:
    data = jobs.Rows()
    data.labels[:] = -100
    trainer = hugging_face.Trainer(jobs.Net(), jobs.hf_arguments(str(tmp_path), 1, 1), eval_dataset=data,
                                   loss=jobs.loss())  # fmt: skip
    assert trainer.evaluate()["eval_loss"] == 0.0


def test_the_evaluation_loss_of_two_ranks_leaves_out_what_fills_the_last_batch(two: list[dict[str, Any]]) -> None:
    for rank in two:
        for said, true in rank["evaluation"]:
            assert said == pytest.approx(true, abs=1e-10)


@pytest.mark.parametrize("answer", ["dict", "tuple", "tensor"])
def test_predictions_are_all_logits(answer: str, tmp_path: Path) -> None:
    """The Trainer drops the first of a tuple, which it takes for the loss."""
    data, net = jobs.Rows(), jobs.Net(answer)
    trainer = hugging_face.Trainer(net, jobs.hf_arguments(str(tmp_path), 1, 1), loss=jobs.loss())
    predictions = trainer.predict(data).predictions
    logits = predictions[0] if answer == "tuple" else predictions
    torch.testing.assert_close(torch.as_tensor(logits), net.layer(data.x).detach(), **EXACT)


def test_an_evaluation_between_steps_changes_none(tmp_path: Path) -> None:
    parts = {"eval_strategy": "steps", "eval_steps": 1}
    arguments = jobs.hf_arguments(str(tmp_path), 1, 3, **parts)
    net = jobs.Net()
    optimizer = torch.optim.SGD(net.parameters(), jobs.RATE)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    data = jobs.Rows()
    trainer = hugging_face.Trainer(
        net, arguments, train_dataset=data, eval_dataset=data, optimizers=(optimizer, rate), loss=jobs.loss()
    )
    trainer.train()
    agrees((jobs.flat(net), [e["loss"] for e in trainer.state.log_history if "loss" in e]), "rows", 3)
    true = jobs.rows_in_step(net.layer(data.x), data.labels, None).item()
    assert [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e][-1] == pytest.approx(true, abs=1e-10)


# -------------------------------------------------------------------------------- Accelerate


def test_the_recipe_for_accelerate(two: list[dict[str, Any]]) -> None:
    for steps in jobs.BLOCKS:
        parameters, _ = jobs.wanted(jobs.Rows(), jobs.BLOCKS[steps])
        for rank in two:
            torch.testing.assert_close(rank["accelerate"][steps], parameters, **EXACT)


def test_accelerate_shares_out_what_a_sampler_for_one_process_draws(two: list[dict[str, Any]]) -> None:
    """No row is lost, none comes twice; with the sampler's own sharing, half of the draw would be dropped."""
    labels = [0] * 50 + [1] * 14
    samplers: dict[str, Any] = {
        "weighted": WeightedRandomSampler(torch.arange(64) + 1.0, 24, seed=3),
        "class": ClassBalancedSampler(labels, 24, seed=3),
        "batches": BalancedBatchSampler(labels, 2, 2, num_batches=6, seed=3),
    }
    for name, sampler in samplers.items():
        for epoch in range(2):
            sampler.set_epoch(epoch)
            drawn = list(itertools.chain(*sampler)) if name == "batches" else list(sampler)
            for who, whole in (("one of one", True), ("by default", False)):
                parts = [rank[who][name][epoch] for rank in two]
                together = list(itertools.chain(*itertools.chain(*zip(*parts, strict=True))))
                assert (together == drawn) is whole
                assert len(together) == (24 if whole else 16)


def test_a_trainer_with_a_sampler_of_ours(two: list[dict[str, Any]]) -> None:
    sampler = WeightedRandomSampler(torch.arange(32) + 1.0, 24, seed=3)
    drawn = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        drawn += list(sampler)
    batches = itertools.chain(*zip(*(rank["sampled"] for rank in two), strict=True))
    assert list(itertools.chain(*batches)) == drawn


# -------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("criterion", "options", "error", "words"),
    [
        (
            torch.nn.CrossEntropyLoss(),
            {},
            TypeError,
            "Trainer: 'loss' must be a loss of steelyard.nn; got CrossEntropyLoss().",
        ),
        (steelyard.nn.CrossEntropyLoss(reduction="sum"), {}, ValueError, "reduction='mean'"),
        (jobs.loss(), {"compute_loss_func": print}, ValueError, "Trainer: 'compute_loss_func' must be left out"),
        (jobs.loss(), {"label_smoothing_factor": 0.1}, ValueError, "Give the loss its label_smoothing."),
    ],
)
def test_what_it_refuses(criterion: Any, options: Any, error: Any, words: str, tmp_path: Path) -> None:
    smoothing = options.pop("label_smoothing_factor", 0.0)
    net = tiny("tokens")
    arguments = jobs.hf_arguments(str(tmp_path), 1, 1, label_smoothing_factor=smoothing)
    with pytest.raises(error) as caught:
        hugging_face.Trainer(net, arguments, loss=criterion, **options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("batch", "options", "words"),
    [
        ({"x": torch.zeros(1, 3)}, {}, "'labels' must be a tensor in every batch; got a batch of x."),
        ({"labels": torch.zeros(2, 3, 4)}, {}, "move the classes to axis 1"),
        ({"labels": torch.tensor([1])}, {"sample_weight_column": "v"}, "remove_unused_columns=False"),
        ({"labels": torch.tensor([7])}, {}, "must be in [0, 4)"),
    ],
)
def test_batches_that_it_refuses(batch: Any, options: Any, words: str, tmp_path: Path) -> None:
    trainer = hugging_face.Trainer(jobs.Net(), jobs.hf_arguments(str(tmp_path), 1, 1), loss=jobs.loss(), **options)
    with pytest.raises((ValueError, IndexError)) as caught:
        trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    assert words in str(caught.value)


def test_outputs_without_logits_are_refused(tmp_path: Path) -> None:
    trainer = hugging_face.Trainer(jobs.Net(), jobs.hf_arguments(str(tmp_path), 1, 1), loss=jobs.loss())
    with pytest.raises(ValueError, match=r"got a dict of scores, hidden\. For another name, override loss_input"):
        trainer.loss_input({"scores": torch.zeros(1, 4), "hidden": None}, torch.tensor([1]))


def test_a_trainer_that_does_not_look_ahead_is_told(tmp_path: Path) -> None:
    trainer = hugging_face.Trainer(jobs.Net(), jobs.hf_arguments(str(tmp_path), 1, 1), loss=jobs.loss())
    batch = {"x": torch.zeros(1, 3, dtype=torch.float64), "labels": torch.tensor([1])}
    with pytest.raises(RuntimeError, match="has not called get_batch_samples"):
        trainer.compute_loss(jobs.Net().train(), batch)


@pytest.mark.parametrize("axis", ["tp", "cp", "sp"])
def test_ranks_that_share_rows_are_refused(axis: str) -> None:
    class Config:
        pass

    config = Config()
    setattr(config, f"{axis}_size", 2)
    with pytest.raises(ValueError, match=f"Trainer: '{axis}_size' must be 1: .* got 2"):
        hugging_face._refuse_split_rows("Trainer", config)


@pytest.mark.parametrize(("kind", "two_parts", "causal"), [
    ("ForCausalLM", False, True), ("ForCausalLM", True, False), ("ForTokenClassification", False, False),
])  # fmt: skip
def test_which_models_are_causal(kind: str, two_parts: bool, causal: bool) -> None:
    class Config:
        is_encoder_decoder = two_parts

    class Model:
        loss_type, config = kind, Config()

    assert hugging_face._is_causal(Model()) is causal


def test_the_loss_goes_where_the_trainer_is(tmp_path: Path) -> None:
    arguments = jobs.hf_arguments(str(tmp_path), 1, 1)
    criterion, moved = jobs.loss(), []
    criterion.to = lambda device: moved.append(device) or criterion
    assert hugging_face.Trainer(jobs.Net(), arguments, loss=criterion).loss is criterion
    assert moved == [arguments.device]


def test_a_loss_with_late_weights(tmp_path: Path) -> None:
    late = steelyard.nn.DeferredReweighting(jobs.loss(), start_epoch=1)
    found, _, _ = one_epoch(jobs.Net(), jobs.Rows(), late, tmp_path, 3)
    plain, _, _ = one_epoch(jobs.Net(), jobs.Rows(), jobs.loss(), tmp_path, 3)
    late.set_epoch(1)
    again, _, _ = one_epoch(jobs.Net(), jobs.Rows(), late, tmp_path, 3)
    assert (found - plain).abs().max() > 0.1
    torch.testing.assert_close(again, plain, **EXACT)
