"""The mean loss of a token of many answers, in packs: what scoring does, whatever stands before an answer.

Section 3 of the paper (the pretrained model's loss on every sample). The loss of a sample is the mean over its answer's
tokens, end included; whether the paper means that or the sum is not found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from lab.data.packing import pack_best_fit
from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss
from lab.training.loop import choose_precision


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How samples are scored.

    Args:
        budget_tokens: of a pack, and so of the longest sample.
        without_prompt: whether each answer is scored without its prompt too, as the filter `ifd` needs it.
        part_samples: samples of a part, which is what is lost by a kill.
        precision: as of `TrainingOptions`.

    Raises:
        LabError: a number below 1, or a budget below 4 tokens.
    """

    budget_tokens: int = 1024
    without_prompt: bool = False
    part_samples: int = 2048
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.budget_tokens < 4 or self.part_samples < 1:
            raise LabError(
                f"budget_tokens and part_samples are {self.budget_tokens} and {self.part_samples}; expected at least "
                "4 and 1"
            )


@torch.inference_mode()
def losses_in_packs(
    score: Callable[[Sequence[int]], AnswerLoss],
    lengths: Sequence[int],
    options: ScoringOptions,
    *,
    ids: Sequence[str],
    scorer: str,
    device: torch.device,
) -> Float[ndarray, " samples"]:
    """The loss of each sample, nats a token.

    Args:
        score: the losses of the samples at these places, as one pack.
        lengths: of the samples' rows, tokens.
        options: of the scoring.
        ids: name the samples in messages.
        scorer: names the model there.
        device: on which it runs.

    Raises:
        LabError: a sample longer than a pack, or a loss that is not finite, whose sample is named.
    """
    found = np.zeros(len(lengths))
    if not len(lengths):
        return found
    bfloat16 = choose_precision(options.precision, device) == "bfloat16"
    packs = pack_best_fit(list(lengths), options.budget_tokens, ids=ids)
    for number in range(len(packs)):
        pack = packs[number]
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            scored = score([int(place) for place in pack])
        found[pack] = (scored.loss.double() / scored.num_tokens).cpu().numpy()
    if len(wrong := np.flatnonzero(~np.isfinite(found))):
        raise LabError(
            f"the loss of sample {ids[int(wrong[0])]!r} by {scorer!r} is {found[wrong[0]]}; try precision float32, or "
            "leave the sample out"
        )
    return found
