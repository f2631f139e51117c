"""The Hugging Face Trainer with a loss of this library: one mean over all micro-batches and ranks of a step.

The Trainer collects the batches of a step before it trains on the first of them, and counts their labels. It knows no
weights: a ``compute_loss_func`` learns how many labels there are, not what they weigh. Here the same moment is used to
ask :func:`steelyard.distributed.loss_denominator`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steelyard._errors import refuse
from steelyard.distributed import loss_denominator
from steelyard.distributed.denominator import own_denominator
from steelyard.nn import DeferredReweighting
from steelyard.nn._base import Loss
from steelyard.nn.softmax import SoftmaxLoss

try:
    import accelerate as _accelerate  # noqa: F401  (transformers says too late that it is missing)
    import transformers
except ImportError as error:
    raise ImportError(
        "steelyard.trainers.hugging_face needs transformers and accelerate: pip install 'transformers[torch]'"
    ) from error

__all__ = ["ExactMean", "Trainer"]

_Mixin: Any = object  # for type checkers: super() has what the Trainer has


class ExactMean(_Mixin):
    r"""Gives a Trainer a loss whose mean is over the whole step, however it is cut into micro-batches and over ranks.

    With class weights, ignored labels or row weights, the Trainer's mean of means is another loss than that of the
    batch you chose. Mix this class into the Trainer that you use; :class:`Trainer` is ready-made.

    Equals, per optimizer step, ``loss(model(all rows of the step), all their labels)``, by gradients that add up to its
    gradient. The logged training loss is this mean. The evaluation loss is the one mean over the evaluation set,
    whatever its batch size; rows that Accelerate repeats to fill the last batch do not count.

    Args:
        *args: For the Trainer, as are the other keywords.
        loss: A loss of :mod:`steelyard.nn` with ``reduction="mean"``. It is moved to the Trainer's device. One in a
            ``DeferredReweighting`` needs a ``TrainerCallback`` that calls its ``set_epoch``.
        shift_labels: Whether the logits of a token are for the label after it, as in causal language models. None:
            as the model's ``loss_type`` says.
        sample_weight_column: The column of the batches that has the weight of each row. With a ``datasets.Dataset`` it
            needs ``remove_unused_columns=False``.

    Labels are under ``"labels"``, logits under ``"logits"`` or first in a tuple, with the classes on the last axis;
    where yours differ, override :meth:`loss_target` and :meth:`loss_input`.

    Raises:
        TypeError: ``loss`` is none of ours. ValueError: a second loss is asked for (``compute_loss_func``,
        ``label_smoothing_factor``), or sequence or tensor parallelism.

    Example:
        >>> import transformers
        >>> class Seq2SeqTrainer(ExactMean, transformers.Seq2SeqTrainer):
        ...     pass
        >>> Seq2SeqTrainer.loss_is_scaled_for_ga
        True

    Source: transformers issues 34191 and 47261 describe the fault.
    """

    loss_is_scaled_for_ga = True  # the Trainer need not divide by the number of micro-batches

    def __init__(
        self,
        *args: Any,
        loss: Loss | DeferredReweighting,
        shift_labels: bool | None = None,
        sample_weight_column: str | None = None,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        if not isinstance(loss, Loss | DeferredReweighting):
            refuse(name, "loss", "a loss of steelyard.nn", loss, error=TypeError)
        if kwargs.get("compute_loss_func") is not None:
            refuse(name, "compute_loss_func", "left out", "one", "The loss is what 'loss' says.")
        given = [*args[1:2], kwargs.get("args")]  # the Trainer's second argument; it looks at the factor itself
        smoothing = next((a.label_smoothing_factor for a in given if isinstance(a, transformers.TrainingArguments)), 0)
        if smoothing != 0:
            refuse(name, "label_smoothing_factor", "0", repr(smoothing), "Give the loss its label_smoothing.")
        super().__init__(*args, **kwargs)
        _refuse_split_rows(name, getattr(self.accelerator, "parallelism_config", None))
        self.loss = loss.to(self.args.device)
        self._formula = loss.loss if isinstance(loss, DeferredReweighting) else loss
        own_denominator(loss, [])  # refuses a loss whose denominator is no rule
        # Before it had `loss_is_scaled_for_ga`, the Trainer went by whether there is a function of the user's.
        self.compute_loss_func = loss
        self.shift_labels = _is_causal(self.model) if shift_labels is None else shift_labels
        self.sample_weight_column = sample_weight_column
        self._denominator: Tensor | None = None
        self._evaluated: Tensor | None = None

    # ---------------------------------------------------------------------------- what the loss is given

    def loss_target(self, batch: dict[str, Any]) -> Tensor:
        """What the loss is given as target of a batch: its labels, without the first of each row if they are shifted.

        It is asked for before the model has seen the batch.
        """
        if not isinstance(batch.get("labels"), Tensor):
            refuse(type(self).__name__, "labels", "a tensor in every batch", f"a batch of {', '.join(batch)}",
                   "A model whose forward has no argument 'labels' needs TrainingArguments(label_names=['labels']); "
                   "for another name, override loss_target.")  # fmt: skip
        labels: Tensor = batch["labels"]
        if labels.is_floating_point() and labels.dim() > 2 and isinstance(self._formula, SoftmaxLoss):
            refuse(type(self).__name__, "labels", "class indices, or probabilities of shape (N, C)", labels,
                   "Override loss_target and loss_input, and move the classes to axis 1.")  # fmt: skip
        return labels[..., 1:] if self.shift_labels else labels

    def loss_input(self, outputs: Any, target: Tensor) -> Tensor:
        """What the loss is given as input: the logits, their last axis moved to 1 where it has the classes."""
        if isinstance(outputs, dict) and "logits" not in outputs:
            refuse(type(self).__name__, "logits", "among what the model gives", f"a dict of {', '.join(outputs)}",
                   "For another name, override loss_input.")  # fmt: skip
        logits: Tensor = outputs["logits"] if isinstance(outputs, dict) else _as_tuple(outputs)[0]
        if self.shift_labels:
            logits = logits[..., :-1, :]
        return logits.movedim(-1, 1) if logits.dim() == target.dim() + 1 else logits

    def _sample_weight(self, batch: dict[str, Any]) -> Any:
        if self.sample_weight_column is None:
            return None
        if self.sample_weight_column not in batch:
            refuse(type(self).__name__, "sample_weight_column", "in every batch", f"a batch of {', '.join(batch)}",
                   "TrainingArguments(remove_unused_columns=False) keeps it.")  # fmt: skip
        return batch[self.sample_weight_column]

    # ---------------------------------------------------------------------------- training

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The batches of a step, as the Trainer collects them; what their losses divide by is computed here."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        targets = [self.loss_target(batch) for batch in batches]
        rows = None
        if self.sample_weight_column is not None:
            rows = [self._sample_weight(batch) for batch in batches]
        self._denominator = loss_denominator(self.loss, targets, sample_weight=rows)
        return batches, items

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The share of a micro-batch in the mean of its step; outside training, the mean of the batch."""
        target, rows = self.loss_target(inputs), self._sample_weight(inputs)
        # The model is to compute no loss of its own.
        outputs = model(**{name: value for name, value in inputs.items()
                           if name not in ("labels", self.sample_weight_column)})  # fmt: skip
        logits = self.loss_input(outputs, target)
        if model.training:
            if self._denominator is None:
                raise RuntimeError(
                    f"{type(self).__name__}: the Trainer has not called get_batch_samples before the first training "
                    "step. Versions of transformers before 4.46 do not."
                )
            loss = self.loss(logits, target, sample_weight=rows, denominator=self._denominator)
        else:
            loss = self.loss(logits, target, sample_weight=rows)
            self._count_evaluated(logits, target, rows)
        if not return_outputs:
            return loss
        # The Trainer takes the first of a tuple for the loss.
        return loss, outputs if isinstance(outputs, dict) else (loss, *_as_tuple(outputs))

    # ---------------------------------------------------------------------------- evaluation

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """The Trainer's, with the one mean over all batches and ranks as its loss."""
        self._evaluated = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        total, divisor = self.accelerator.reduce(self._evaluated, reduction="sum").tolist()
        key = f"{metric_key_prefix}_loss"
        if key in output.metrics and divisor != 0:
            output.metrics[key] = total / divisor
        return output

    def _count_evaluated(self, logits: Tensor, target: Tensor, rows: Any) -> None:
        """Add a batch to numerator and denominator of the evaluation loss."""
        if self._evaluated is None:
            return
        state = self.accelerator.gradient_state
        if self.accelerator.num_processes > 1 and state.end_of_dataloader and state.remainder > 0:
            # The last batches of all ranks hold so many rows; Accelerate has filled them up with others.
            kept = min(max(state.remainder - self.accelerator.process_index * len(target), 0), len(target))
            logits, target, rows = logits[:kept], target[:kept], None if rows is None else rows[:kept]
        divisor = own_denominator(self.loss, target, rows)
        with torch.no_grad():
            total = self.loss(logits, target, sample_weight=rows, denominator=1.0)
        self._evaluated += torch.stack([total.double(), divisor])


class Trainer(ExactMean, transformers.Trainer):
    """``transformers.Trainer`` with a loss of :mod:`steelyard.nn`, whose mean is over the whole step.

    See :class:`ExactMean` for what it adds, and docs/scale.md for an example.
    """


def _is_causal(model: Any) -> bool:
    """Whether the model's own loss would compare the logits of a token with the label of the next."""
    two_parts = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return getattr(model, "loss_type", None) == "ForCausalLM" and not two_parts


def _refuse_split_rows(name: str, config: Any) -> None:
    for axis in ("tp", "cp", "sp"):
        size = getattr(config, f"{axis}_size", 1)
        if size > 1:
            refuse(name, f"{axis}_size", "1: ranks that share the rows of a batch are not supported", repr(size))


def _as_tuple(outputs: Any) -> tuple[Any, ...]:
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)
