"""Who looks on while a loss is computed: what is done past the dispatcher they would not see."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["PLAIN", "again", "saving_elsewhere", "undisturbed"]

PLAIN = (Tensor, torch.nn.Parameter)
"""Types whose operations do what they say; a subclass may do anything."""

# By names of their own: a small batch feels each look into a module.
_is_compiling = torch.compiler.is_compiling
_transforming = torch._C._are_functorch_transforms_active
_dispatch_modes = torch._C._len_torch_dispatch_stack
_tracing_state = torch._C._get_tracing_state
_has_key = torch._C._dispatch_tls_is_dispatch_key_included
_recording = torch.is_grad_enabled
_PRE_DISPATCH = torch._C.DispatchKey.PreDispatch  # where make_fx(pre_dispatch=True) and torch.export listen
_saved_tensor_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)  # from PyTorch 2.8 on
_is_batched = torch._C._functorch.is_legacy_batchedtensor  # torch.autograd.grad(..., is_grads_batched=True)


def undisturbed() -> bool:
    """Whether nobody compiles, transforms, traces, or watches every operation."""
    return not (
        _is_compiling()
        or _transforming()
        or _watched()
        or forward_ad._current_level >= 0
        or _tracing_state() is not None
    )


def again(grad: Tensor) -> bool:
    """In a backward pass: whether the gradient is to be differentiated itself, or transformed, or watched."""
    return _recording() or _transforming() or bool(_is_batched(grad)) or _watched()


def _watched() -> bool:
    """Whether somebody sees every operation go by: a dispatch mode, a tracer."""
    return bool(_dispatch_modes()) or _has_key(_PRE_DISPATCH)


def saving_elsewhere() -> bool:
    """Whether somebody (checkpointing, offloading) decides where saved tensors go: a gradient kept here escapes."""
    return _saved_tensor_hooks is None or _saved_tensor_hooks(True) is not None
