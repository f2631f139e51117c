"""The Python to paste: one split of the comparison written out, with the remedy where a reader expects it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from steelyard.compare.run import SAMPLES, tuned_for
from steelyard.compare.strategies import STRATEGIES
from steelyard.compare.table import Table
from steelyard.compare.train import Recipe

__all__ = ["for_folder", "script"]


NEEDS_FRAME = """\
# The comparison was given a data frame. In a notebook that has it as `frame`, this runs; in a file, read it here.
if "frame" not in globals():
    raise SystemExit("Set 'frame' to the data frame that was compared, above this line.")
"""


def script(
    name: str,
    table: Table,
    options: dict[str, object],
    recipe: Recipe,
    *,
    metric: str,
    folds: int,
    seed: int,
    rows: int,
) -> str:
    """A whole program that trains the remedy on the first split and prints its scores, the same as in the comparison.

    Args:
        options: What ``load`` was called with beside source and target.
        rows: Training rows of the first split.
    """
    strategy = STRATEGIES[name]
    given = "".join(f", {key}={value!r}" for key, value in options.items() if value)
    source = repr(table.source) if table.source else "frame"
    split_seed = int(np.random.SeedSequence([seed, 0, 0]).generate_state(1)[0])
    pieces = ["load", "make_splits", "network", "preprocessor"]
    weighted = "class_weights" in strategy.loss_code or strategy.sampler_code
    imports = [
        "import copy\n",
        "import torch",
        "from sklearn.metrics import balanced_accuracy_score, classification_report, log_loss",
        "from torch.utils.data import WeightedRandomSampler" if strategy.sampler_code else "",
        "\nimport steelyard.nn",
        f"from steelyard.compare import {', '.join(pieces)}",
        "from steelyard.posterior import tune_threshold" if strategy.tuned else "",
        "from steelyard.weights import class_weights" if weighted else "",
    ]
    remedy = f"loss = {strategy.loss_code}"
    watch, order = "loss", "torch.randperm(len(y_train), generator=generator)"
    if strategy.sampler_code:
        remedy += (
            '\nweights = class_weights(counts, "balanced", normalize="prior")'
            f"\nsampler = {strategy.sampler_code}"
            "\nwatched = steelyard.nn.CrossEntropyLoss(weight=weights)  # what training aims at"
        )
        watch, order = "watched", "torch.tensor(list(sampler))"
    start = "" if table.source else NEEDS_FRAME
    blocks = [
        f"# {_one_line(table.name)}, target '{_one_line(table.target_name)}': {strategy.label}, "
        "as in the first split of the comparison.",
        "\n".join(line for line in imports if line),
        f"""\
# 1. Rows. Equal rows stay on one side; everything fitted is fitted on the training part.
{start}table = load({source}, {table.target_name!r}{given})
split = make_splits(table.target, table.groups, table.words, folds={folds}, repeats=1, seed={seed})[0]
parts = (split.train, split.validation, split.test)
prepare = preprocessor(table.features).fit(table.features[split.train])
x_train, x_val, x_test = (torch.from_numpy(prepare.transform(table.features[rows])).float() for rows in parts)
y_train, y_val, y_test = (torch.from_numpy(table.target[rows]) for rows in parts)""",
        f"""\
# 2. The remedy: {strategy.idea}.
torch.manual_seed({split_seed})
generator = torch.Generator().manual_seed({split_seed})
counts = torch.bincount(y_train)
{remedy}""",
        f"""\
# 3. Training, until the remedy's own loss on the validation rows stops falling.
model = network(x_train.shape[1], len(counts), hidden={recipe.hidden})
optimizer = torch.optim.AdamW(model.parameters(), lr={recipe.learning_rate}, weight_decay={recipe.weight_decay})
best, best_state, waited = float("inf"), copy.deepcopy(model.state_dict()), 0
for epoch in range({recipe.epochs}):
    for rows in {order}.split({recipe.batch_size(rows)}):
        optimizer.zero_grad()
        loss(model(x_train[rows]), y_train[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        reached = {watch}(model(x_val), y_val).item()
    waited += 1
    if reached < best:
        best, best_state, waited = reached, copy.deepcopy(model.state_dict()), 0
    if waited == {recipe.patience}:
        break
model.load_state_dict(best_state)""",
        "# 4. Probabilities and decisions.\n" + _answers(name, metric),
        """\
print(classification_report(y_test, decisions, target_names=table.words, zero_division=0.0))
print(f"balanced accuracy {balanced_accuracy_score(y_test, decisions):.4f}")
print(f"log loss {log_loss(y_test, probabilities):.4f}, of the posterior {log_loss(y_test, posterior):.4f}")""",
    ]
    return "\n\n".join(blocks) + "\n"


def for_folder(program: str, table: Table, folder: Path) -> str:
    """The program as a file in ``folder`` that finds the data from wherever it is run.

    The path goes out from the program's own folder: a project that is moved or shared as a whole keeps working, and
    nothing about this machine's folders is told. On another drive, where there is no such path, it starts at the root.
    """
    if table.path is None:
        return program
    try:
        way = Path(os.path.relpath(table.path, folder.resolve())).as_posix()
    except ValueError:  # another drive
        return program.replace(f"load({table.source!r}, ", f"load({str(table.path)!r}, ", 1)
    found = f"table = load(Path(__file__).resolve().parent / {way!r}, "
    program = program.replace(f"table = load({table.source!r}, ", found, 1)
    return program.replace("import copy\n", "import copy\nfrom pathlib import Path\n", 1)


def _one_line(text: str) -> str:
    """A name from the data for a comment: a line break in it would end the comment and begin a statement."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _answers(name: str, metric: str) -> str:
    strategy = STRATEGIES[name]
    lines = [
        "with torch.no_grad():",
        "    logits = model(x_test).double()",
        f"probabilities = {strategy.probability_code}",
    ]
    if strategy.tuned:
        lines += [
            "with torch.no_grad():",
            "    held_out = model(x_val).double().softmax(1)",
            f'tuned = tune_threshold(held_out, y_val, "{tuned_for(metric)}", bootstrap={SAMPLES}, seed=0)',
            "for word, cut, low, high in zip(table.words, tuned.threshold, tuned.low, tuned.high):",
            '    print(f"cut-off of {word}: {cut:.3f} ({low:.3f} to {high:.3f})")',
            "decisions = tuned.predict(probabilities)",
        ]
    else:
        lines.append("decisions = probabilities.argmax(1)")
    lines.append(f"posterior = {strategy.posterior_code}  # how often each class really occurs")
    return "\n".join(lines)
