"""Attention that keeps packed samples apart, by name, and which of it this machine can run.

Section 3 of the paper. The contract is `lab.parts.packed_attention_kernels`'.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lab.errors import LabError, choose
from lab.parts.packed_attention_kernels import (
    Attend,
    attend_flash_attn,
    attend_flex,
    attend_per_sample,
    attend_sdpa,
    attend_torch_varlen,
)

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class PackedAttention:
    """A backend: its function, and why it cannot run on a device, in a dtype, with gradients or not (None: it can)."""

    attend: Attend
    missing: Callable[[torch.device, torch.dtype, bool], str | None]


def _flash_attn_missing(device: torch.device, dtype: torch.dtype, gradients: bool) -> str | None:
    if importlib.util.find_spec("flash_attn") is None:
        return "the package flash-attn is not installed"
    return _half_on_gpu(device, dtype)


def _torch_varlen_missing(device: torch.device, dtype: torch.dtype, gradients: bool) -> str | None:
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return f"torch {torch.__version__} has no torch.nn.attention.varlen"
    return _half_on_gpu(device, dtype)


def _half_on_gpu(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda":
        return f"it has no kernel for {device.type}"
    return None if dtype in _HALF else f"it has no kernel for {dtype}, only for {' and '.join(map(str, _HALF))}"


def _flex_missing(device: torch.device, dtype: torch.dtype, gradients: bool) -> str | None:
    return None if device.type == "cuda" or not gradients else f"it has no backward pass on {device.type}"


def _never_missing(device: torch.device, dtype: torch.dtype, gradients: bool) -> str | None:
    return None


# In the order of preference of `auto`: kernels made for this, then one SDPA call a sample, which on a CPU measured 2
# to 10 times faster than padding or a dense mask.
PACKED_ATTENTION: dict[str, PackedAttention] = {
    "flash_attn": PackedAttention(attend_flash_attn, _flash_attn_missing),
    "torch_varlen": PackedAttention(attend_torch_varlen, _torch_varlen_missing),
    "per_sample": PackedAttention(attend_per_sample, _never_missing),
    "flex": PackedAttention(attend_flex, _flex_missing),
    "sdpa": PackedAttention(attend_sdpa, _never_missing),
}


def choose_packed_attention(name: str, *, device: torch.device, dtype: torch.dtype, gradients: bool = True) -> str:
    """The backend of that name, where this machine can run it; `auto` is the first of `PACKED_ATTENTION` that it can.

    Args:
        name: of `PACKED_ATTENTION`, or `auto`.
        device: where the model is.
        dtype: in which attention is computed.
        gradients: whether a backward pass follows.

    Raises:
        LabError: an unknown name, or one that this machine cannot run; the message says why and what it can.
    """
    why = {backend: entry.missing(device, dtype, gradients) for backend, entry in PACKED_ATTENTION.items()}
    can = [backend for backend, reason in why.items() if reason is None]
    if name == "auto":
        return can[0]
    choose(PACKED_ATTENTION, name, "attention backend")
    if why[name] is not None:
        raise LabError(f"attention backend {name!r} cannot run here: {why[name]}; choose: auto, {', '.join(can)}")
    return name
