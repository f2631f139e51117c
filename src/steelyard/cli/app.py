"""The four commands. Each parses, calls one public function and prints; what is printed is in ``show``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from steelyard._version import __version__

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Classification on imbalanced data: look at it, weigh it, and find out which remedy it wants.",
    epilog="Exit code 0: done. 1: failed part-way or interrupted. 2: wrong usage, or data that cannot be used.",
)

Data = Annotated[Path, typer.Argument(metavar="DATA", help="A CSV, TSV or Parquet file.", show_default=False)]
AnyData = Annotated[
    Path,
    typer.Argument(
        metavar="DATA", show_default=False,
        help="A CSV, TSV or Parquet file; or what is counted where it is: JSON lines, a pattern in quotes or a folder "
        "of tables, a folder of class folders, label masks, COCO annotations.",
    ),
]  # fmt: skip
Target = Annotated[str, typer.Option("--target", "-t", help="The column of classes.", show_default=False)]
AnyTarget = Annotated[
    str | None,
    typer.Option("--target", "-t", help="The column of classes, where there are columns.", show_default=False),
]
Drop = Annotated[list[str] | None, typer.Option(help="A column to leave out; may be given again.", show_default=False)]
Ignore = Annotated[
    int | None, typer.Option(help="A label that is no class, such as 255 of masks; not counted.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else to standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


COUNTING = (ValueError, TypeError, IndexError, OSError)
"""What count_classes raises for data that cannot be counted."""


@contextmanager
def exit_codes(debug: bool, bad_input: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """One line on standard error and an exit code instead of a traceback, unless ``debug``."""
    refused: tuple[type[Exception], ...] = (ImportError, *bad_input)
    try:
        from steelyard.compare.read import InputError  # within: an interrupt may come while it loads

        refused += (InputError,)
        yield
    except KeyboardInterrupt:
        _say("interrupted; nothing was written.")
        raise typer.Exit(1) from None
    except typer.Exit:
        raise
    except Exception as error:
        if debug:
            raise
        _say(" ".join(str(error).split()) or type(error).__name__)
        raise typer.Exit(2 if isinstance(error, refused) else 1) from None


def _say(text: str) -> None:
    print(f"steelyard: {text}", file=sys.stderr)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"steelyard {__version__}")
        raise typer.Exit


@app.callback()
def _steelyard(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@app.command()
def inspect(
    data: AnyData,
    target: AnyTarget = None,
    drop: Drop = None,
    ignore_index: Ignore = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at the data before training: class counts, duplicates, missing values, columns that are no features.

    Of data that is no single table, the class counts alone.
    """
    with exit_codes(debug, COUNTING):
        from steelyard import compare as library
        from steelyard.cli import show

        if library.is_counted(data):
            if drop:
                raise ValueError("inspect: 'drop' must be left out where only classes are counted.")
            with show.counting_bar() as progress:
                counted = library.inspect_counts(data, target, ignore_index=ignore_index, progress=progress)
            if as_json:
                _print_json(counted.to_dict())
            else:
                show.counted(counted)
            return
        if ignore_index is not None:
            raise ValueError(
                "inspect: 'ignore_index' must be left out for a single table, whose rows are all looked at."
            )
        found = library.inspect(data, _column(target, data, "inspect"), drop=drop or ())
        if as_json:
            _print_json(found.to_dict())
        else:
            show.inspection(found)


def _column(target: str | None, data: Path, function: str) -> str:
    """The target, which a table needs."""
    if target is None:
        from steelyard.compare.read import bad, header

        names = ", ".join(header(data, function).columns)
        bad(function, "target", "the column of classes (--target)", None, f"The columns are {names}.")
    return target


@app.command()
def weights(
    data: AnyData,
    target: AnyTarget = None,
    scheme: Annotated[
        str,
        typer.Option(
            "--scheme", "-s",
            help="inverse, max_ratio, balanced, sqrt_inverse, effective_number, median_frequency or log.",
        ),
    ] = "balanced",
    power: Annotated[float, typer.Option(help="Raise the weights to this power; 0.5 corrects half-way.")] = 1.0,
    beta: Annotated[float | None, typer.Option(help="For effective_number, in [0, 1).", show_default=False)] = None,
    cap: Annotated[
        float | None, typer.Option(help="Largest weight over the smallest, at most.", show_default=False)
    ] = None,
    normalize: Annotated[
        str | None, typer.Option(help="Make their mean, sum, max or prior mean 1.", show_default=False)
    ] = None,
    missing: Annotated[str, typer.Option(help="For classes without rows: raise, zero or max.")] = "raise",
    ignore_index: Ignore = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Weights for the classes of a column, of a folder or of masks, and the Python to paste."""
    with exit_codes(debug, (*COUNTING, KeyError)):
        import warnings

        from steelyard.cli import show
        from steelyard.compare import is_counted
        from steelyard.compare.read import column, header
        from steelyard.compare.table import plain
        from steelyard.counts import count_classes
        from steelyard.explain import check
        from steelyard.weights import class_weights

        options: dict[str, Any] = {
            "power": power, "beta": beta, "cap": cap, "normalize": normalize, "missing": missing
        }  # fmt: skip
        if not is_counted(data):
            column(header(data, "weights"), _column(target, data, "weights"), "weights", "target")
        with show.counting_bar() as progress:
            counts = count_classes(data, target, ignore_index=ignore_index, progress=progress)
        for finding in check(counts=counts):
            _say(f"{finding.code} {finding.severity}: {finding.message} {finding.fix}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            values = class_weights(counts, scheme, **options)
        for warning in caught:
            _say(f"note: {warning.message}")
        names = [plain(c) for c in counts.classes]
        table = show.weight_table(names, counts.counts.tolist(), values.tolist())
        code = show.weight_code(str(data), target, scheme, options, names, ignore_index)
        if as_json:
            _print_json(
                {"data": data.name, "target": target, "scheme": scheme, "options": options, **table, "python": code}
            )
        else:
            show.weights(table, code, scheme)


@app.command()
def explain(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Saved logits and labels: CSV, TSV, Parquet or npz.", show_default=False),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", show_default=False,
            help="The column or array of labels, again for each of several (usually: target, labels, label or y).",
        ),
    ] = None,
    logits: Annotated[
        list[str] | None,
        typer.Option(
            "--logits", "-l", show_default=False,
            help="A column of logits, again for each class (usually: all other numbers); of an npz, the array.",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            help="Its function, such as cross_entropy, nll_loss or focal_loss (usually: cross_entropy, and for one "
            "column of logits binary_cross_entropy_with_logits).",
        ),
    ] = None,
    weight: Annotated[
        str | None, typer.Option(metavar="W,W,...", help="Class weights.", show_default=False)
    ] = None,
    pos_weight: Annotated[
        str | None, typer.Option(metavar="P[,P,...]", help="Weight of positives.", show_default=False)
    ] = None,
    sample_weight: Annotated[
        str | None, typer.Option(metavar="NAME", help="A column or array of row weights.", show_default=False)
    ] = None,
    counts: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Training rows of each class, for losses and checks.", show_default=False),
    ] = None,
    smoothing: Annotated[float | None, typer.Option(help="Label smoothing.", show_default=False)] = None,
    gamma: Annotated[float | None, typer.Option(help="Focusing.", show_default=False)] = None,
    ignore_index: Annotated[int | None, typer.Option(help="A label that is left out.", show_default=False)] = None,
    reduction: Annotated[str, typer.Option(help="mean, sum or none.")] = "mean",
    denominator: Annotated[
        str, typer.Option(help="What a mean divides by: torch, weights, samples, or a number.")
    ] = "torch",
    rows: Annotated[int, typer.Option(help="How many rows --json lists, those that contribute most.")] = 10,
    as_json: Json = False,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Say what a loss did with saved predictions: who cost what, what divides the sum, and why the number is so."""
    with exit_codes(debug, bad_input=(ValueError, TypeError, IndexError, OSError)):
        import functools

        from steelyard import functional
        from steelyard.cli import show
        from steelyard.cli.predictions import numbers_of, read_predictions
        from steelyard.explain import check
        from steelyard.explain import explain as library

        found = read_predictions(file, target or (), logits or (), sample_weight, loss)
        given: dict[str, Any] = {
            "weight": numbers_of(weight, "weight"), "pos_weight": numbers_of(pos_weight, "pos-weight"),
            "sample_weight": found.sample_weight, "label_smoothing": smoothing, "gamma": gamma,
            "ignore_index": ignore_index, "reduction": reduction, "denominator": _number_or_word(denominator),
        }  # fmt: skip
        options = {name: value for name, value in given.items() if value is not None}
        numbers = numbers_of(counts, "counts")
        of_loss = {} if numbers is None or found.loss not in show.COUNTED else {"counts": numbers}
        function = functools.partial(getattr(functional, found.loss), **options, **of_loss)
        explanation = library(function, found.input, found.target)
        findings = check(loss=function, input=found.input, target=found.target, counts=numbers)
        if as_json:
            _print_json({"file": file.name, **explanation.to_dict(rows), "findings": findings.to_dict()})
        else:
            show.explanation(explanation, findings)


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


@app.command()
def compare(
    data: Data,
    target: Target,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", show_default=False,
            help="Write report.html, report.json and recommended.py here.",
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            "--metric", "-m",
            help="What a remedy must improve: balanced_accuracy, macro_f1, average_precision, "
            "rarest_average_precision, accuracy, log_loss or brier.",
        ),
    ] = "balanced_accuracy",
    strategies: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...", show_default=False,
            help="Only these of logit_adjustment, weights, weights_half, sampling, balanced_softmax, focal; "
            "none and threshold always run.",
        ),
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds: one tests, one validates, the rest train.")] = 5,
    repeats: Annotated[int, typer.Option(help="How many times the data is divided anew.")] = 2,
    epochs: Annotated[int, typer.Option(help="The most epochs; early stopping ends most trainings before.")] = 60,
    seed: Annotated[int, typer.Option(help="The same seed gives the same report.")] = 0,
    drop: Drop = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COL", show_default=False,
            help="A column that names the case: its rows stay on one side of a split, beside rows with identical "
            "features; may be given again.",
        ),
    ] = None,
    varies: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COL", show_default=False,
            help="A column in which the rows of one case differ: rows alike in all others stay together; "
            "may be given again.",
        ),
    ] = None,
    split_duplicates: Annotated[
        bool, typer.Option("--split-duplicates", help="Let rows with identical features fall on both sides.")
    ] = False,
    threads: Annotated[int, typer.Option(help="PyTorch threads; the model is too small to gain from more.")] = 1,
    as_json: Json = False,
    show_code: Annotated[bool, typer.Option("--show-code", help="Print the program of the remedy.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no table.")] = False,
    debug: Debug = False,
) -> None:  # fmt: skip
    """Train one small model under each remedy and say which one the data wants, if any.

    Every remedy is judged on the same repeated splits, with intervals, beside doing nothing and doing nothing with
    tuned cut-offs. Where nothing helps, the answer is to do nothing.
    """
    with exit_codes(debug):
        from steelyard import compare as library
        from steelyard.cli import show

        if output is not None:
            from steelyard.compare.report import check_folder

            check_folder(output)
        with show.progress_bar(hidden=quiet) as progress:
            comparison = library.compare(
                data, target, metric=metric, strategies=_words(strategies), folds=folds, repeats=repeats, seed=seed,
                epochs=epochs, drop=drop or (), group=group or (), varies=varies or (),
                split_duplicates=split_duplicates, threads=threads, progress=progress,
            )  # fmt: skip
        written: list[str] = []
        failure: Exception | None = None
        if output is not None:
            try:
                written = comparison.save(output)
            except Exception as error:  # the answer took long to find: print it before saying what went wrong
                failure = error
        if as_json:
            _print_json(comparison.to_dict())
        elif not quiet:
            show.comparison(comparison, written, code=show_code)
        if failure is not None:
            reason = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
            raise RuntimeError(f"compare: the report could not be written to {output}: {reason}") from failure


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]
