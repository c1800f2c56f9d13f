"""Greedy, beam and drawn answers of a batch with a key-value cache: the prefix is read once, then one token a step.

Axes: `batch` (examples), `beams`; in the cache `heads`, `tokens`, `head_dim`. A drawn answer depends on the seed, its
example's name and its number alone: its noise is drawn for it, whatever stands beside it in the batch.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache, DynamicLayer

from lab.errors import LabError
from lab.parts.omni_model import Example, OmniModel

IMPOSSIBLE = float("-inf")
_LEAST_ROOM = 64


@torch.inference_mode()
def decode(
    model: OmniModel,
    examples: Sequence[Example],
    *,
    max_new_tokens: int | Sequence[int],
    num_beams: int = 1,
    length_penalty: float = 1.0,
) -> list[list[int]]:
    """Answers as token ids, without start and end; one that does not end is cut at `max_new_tokens`, its own or all's.
