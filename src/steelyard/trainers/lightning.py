"""Lightning's automatic optimisation with a loss of this library: one mean over all micro-batches and ranks of a step.

Lightning hands out one batch at a time, so that what the step divides by is known only at its end. Until then all
micro-batches of all ranks divide by one provisional number; before the optimizer's step, and before gradients are
clipped, the gradient is multiplied by what that number was off. A gradient is linear in the loss, so this is exact.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from steelyard._errors import describe, refuse
from steelyard.distributed import _group
from steelyard.distributed.denominator import own_denominator
from steelyard.nn._base import Loss

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError as error:
        raise ImportError("steelyard.trainers.lightning needs Lightning: pip install lightning") from error

__all__ = ["ExactMean"]

_NAME = "ExactMean"
_F64 = torch.float64
# By name, since the classes of `lightning.pytorch` and `pytorch_lightning` are not the same. Their engines average
# gradients over all ranks and leave them in `grad`.
_STRATEGIES = {"SingleDeviceStrategy", "DDPStrategy", "FSDPStrategy"}


class ExactMean(Callback):
    r"""Makes the loss of a ``LightningModule`` the mean over the whole step, however it is cut up.

    With class weights, ignored rows or row weights, ``accumulate_grad_batches`` and DDP take the mean of means, which
    is another loss than that of the batch you chose. This callback needs no change of the module: where
    ``training_step`` calls the loss, it sees to the denominator.

    Equals, per optimizer step, ``loss(all logits of the step, all their targets)``, by its gradient.

    Args:
        loss: The name of the loss in the module, as ``"loss"`` for ``self.loss``. None: the only one there is.
        log: The name under which the mean of each step is logged. What ``training_step`` sees is the micro-batch's
            share, divided by a provisional number.

    The gradient is scaled as a whole: ``training_step`` returns this loss alone, or a multiple of it. For a sum with
    other terms, optimise manually, with :func:`steelyard.distributed.loss_denominator`. Callbacks that read gradients
    in ``on_before_optimizer_step`` come after this one in the list. Validation is left alone.

    Attributes:
        mean: The mean of the last step, 0-d, float64, the same on all ranks.

    Raises:
        TypeError, ValueError: at the start of ``fit``, where the module, its loss or the strategy is not as said; in
            training, where the loss is called with a denominator, or is not all that ``training_step`` returns.

    Example:
        >>> import lightning
        >>> trainer = lightning.Trainer(accumulate_grad_batches=4, callbacks=[ExactMean(log="train_loss")])

    Source: Lightning issue 582 describes the fault.
    """

    def __init__(self, loss: str | None = None, log: str | None = None) -> None:
        for argument, value in (("loss", loss), ("log", log)):
            if value is not None and not isinstance(value, str):
                refuse(_NAME, argument, "a name, or None", describe(value), error=TypeError)
        super().__init__()
        self.loss_name, self.log_name = loss, log
        self.mean: Tensor | None = None
        self._loss: Any = None
        self._hooks: list[Any] = []
        self._training = False
        self._forget()

    def _forget(self) -> None:
        """A new step: nothing has been divided yet."""
        self._provisional: Tensor | None = None
        self._called: list[tuple[Any, Tensor, Tensor]] = []  # graph node, denominator and loss of calls to come
        self._totals: Tensor | None = None  # denominators and losses of this rank that are in the gradient

    # ---------------------------------------------------------------------------- the loss

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the loss, and watch its calls."""
        if type(trainer.strategy).__name__ not in _STRATEGIES:  # those derived from them keep gradients elsewhere
            refuse(_NAME, "strategy", "a single device, DDP or FSDP", type(trainer.strategy).__name__,
                   "Optimise manually, with steelyard.distributed.loss_denominator.")  # fmt: skip
        if not pl_module.automatic_optimization:
            refuse(_NAME, "automatic_optimization", "True", "False",
                   "In a manual step, steelyard.distributed.loss_denominator says what to divide by.")  # fmt: skip
        self._unhook()
        self._forget()
        self._loss = _found(pl_module, self.loss_name)
        self._hooks = [
            self._loss.register_forward_pre_hook(torch.compiler.disable(self._before_loss), with_kwargs=True),
            self._loss.register_forward_hook(torch.compiler.disable(self._after_loss), with_kwargs=True),
        ]

    def _before_loss(self, loss: Loss, args: Any, kwargs: Any) -> Any:
        if not self._in_step():
            return None
        own: Tensor | None = None
        failure: Exception | None = None
        try:
            given = _arguments(loss, args, kwargs)
            if given.get("denominator") is not None:
                refuse(_NAME, "denominator", "left out of the call of the loss", describe(given["denominator"]))
            own = own_denominator(loss, given["target"], given.get("sample_weight"))
        except Exception as error:  # the other ranks are waiting
            if self._provisional is not None:
                raise
            failure = error
        if self._provisional is None:
            # One number for all ranks, near the right one: gradients and the losses shown have the size of a mean's.
            total = _group.shared_sum(_NAME, _world(), own, failure) / _group.world_size(_world())
            self._provisional = total.masked_fill(total == 0, 1.0)
        assert own is not None
        self._own = own
        return args, {**kwargs, "denominator": self._provisional}

    def _after_loss(self, loss: Loss, args: Any, kwargs: Any, result: Tensor) -> None:
        if self._in_step():
            self._called.append((result.grad_fn, self._own, result.detach().to(_F64)))

    def _in_step(self) -> bool:
        """Whether a call of the loss is one that trains."""
        return self._training and torch.is_grad_enabled()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """From here on, calls of the loss are for the step."""
        self._training, self._called = True, []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Validation may come next."""
        self._training = False

    # ---------------------------------------------------------------------------- the gradient

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """What the gradient is about to take in."""
        if not _only_through([node for node, _, _ in self._called], loss.grad_fn):
            raise ValueError(
                f"{_NAME}: training_step must return the loss that it has called, alone or times a number; got "
                f"something else after {len(self._called)} calls of {type(self._loss).__name__}. The whole gradient is "
                "scaled, and other terms with it: optimise manually, with steelyard.distributed.loss_denominator."
            )
        added = torch.stack([torch.stack([own, value.to(own.device)]) for _, own, value in self._called]).sum(0)
        self._totals = added if self._totals is None else self._totals + added

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """From the provisional denominator to that of the step; Lightning clips after this."""
        totals, provisional = self._totals, self._provisional
        self._forget()
        if totals is None or provisional is None:
            return  # no micro-batch of this step had a loss
        if _world() is not None:
            dist.all_reduce(totals)
        divisor, total = totals / _group.world_size(_world())
        empty = self._loss.empty
        if empty == "raise" and bool(divisor == 0):
            raise ValueError(f"{_NAME}: the mean must have something to divide by; got a step whose denominator is 0.")
        factor = provisional / divisor
        if empty == "zero":
            factor = factor.masked_fill(divisor == 0, 0.0)
        self.mean = total * factor
        # Lightning has divided each loss by the number of micro-batches that a full step would have.
        _scale(optimizer, factor * trainer.accumulate_grad_batches)
        if self.log_name is not None:
            pl_module.log(self.log_name, self.mean, on_step=True, on_epoch=False, prog_bar=True, batch_size=1)

    # ---------------------------------------------------------------------------- the end

    def _unhook(self) -> None:
        self._training = False
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the loss as it was."""
        self._unhook()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the loss as it was."""
        self._unhook()


def _world() -> Any:
    return _group.resolve(_NAME, None)


def _found(module: Any, name: str | None) -> Loss:
    """The loss that is meant."""
    where: Any = module
    if name is not None:
        where = getattr(module, name, None)
        if not isinstance(where, torch.nn.Module):
            refuse(_NAME, "loss", f"the name of a loss of {type(module).__name__}", repr(name))
    losses = [each for each in where.modules() if isinstance(each, Loss)]
    if len(losses) != 1:
        held = ", ".join(type(each).__name__ for each in losses) or "none"
        refuse(_NAME, "loss", f"the one loss of steelyard.nn in {type(where).__name__}", held,
               "Name the one that is trained: ExactMean('loss') for self.loss." if losses else
               "Keep it as a module: self.loss = steelyard.nn.CrossEntropyLoss(...).")  # fmt: skip
    own_denominator(losses[0], [])  # refuses a loss that has no rule
    return losses[0]


def _arguments(loss: Loss, args: Any, kwargs: Any) -> dict[str, Any]:
    forward: Callable[..., Any] = loss.forward
    return inspect.signature(forward).bind(*args, **kwargs).arguments


def _only_through(nodes: list[Any], root: Any) -> bool:
    """Whether all paths from ``root`` to parameters lead through ``nodes``, and each of these is on one."""
    seen, reached, ahead = set(), set(), [root]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in nodes:
            reached.add(node)
        elif type(node).__name__ == "AccumulateGrad":  # a parameter
            return False
        else:
            ahead.extend(parent for parent, _ in node.next_functions)
    return bool(nodes) and reached == set(nodes)


def _scale(optimizer: Any, factor: Tensor) -> None:
    """Multiply the gradients, those of 16 bits without rounding the factor to their precision."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            wide = torch.promote_types(gradient.dtype, torch.float32)
            number = factor.to(gradient.device, wide)
            if wide == gradient.dtype:
                gradient.mul_(number)
            else:
                gradient.copy_(gradient.to(wide) * number)
