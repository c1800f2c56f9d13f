"""What the cells of a fine-tuning study on pictures choose from: questions with planted faults, and their losses.

Section 3 of the paper. Faults are planted in question and answer, as in instructions of text
(`lab.data.instructions.planted_faults`); the picture stays. So a swapped pair asks by its answer, and another answer
is what another question of the same kind is answered with. They are planted in what is fine-tuned on, never in what the
pretrained model has seen, nor in what is tested.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lab.data.filters.filtering import Filtered
from lab.data.instructions.planted_faults import plant_faults
from lab.data.sample import samples_sha256
from lab.errors import LabError
from lab.training.image_text_model import PretrainedImageText
from lab.training.instruction_filter import ScoredInstructions
from lab.training.packed_losses import ScoringOptions
from lab.training.parameters import PictureTuningParameters
from lab.training.samples import SampleExamples
from lab.training.scoring import Answers, open_losses

_PART_SAMPLES = 512


@dataclass(frozen=True, kw_only=True)
class ImageTextData(ScoredInstructions):
    """Pictures with questions, of which a known share is faulty, and the pretrained model's losses of them.

    `train` are the questions and answers of `split`, in its order; `sha256` is of all that they say; in `scores` are
    their losses.
    """

    split: SampleExamples
    sha256: str
    scores: Path

    def kept(self, filtered: Filtered) -> SampleExamples:
        """What a filter leaves of the split."""
        pairs = zip(self.split.samples, filtered.keep.tolist(), strict=True)
        return replace(self.split, samples=[sample for sample, stays in pairs if stays])


def check_image_text(parameters: PictureTuningParameters) -> None:
    """Refuse numbers that no study has.

    Raises:
        LabError: fewer examples than one to pretrain on or two to fine-tune on, a share of faults out of range, or
            packs too small for a faulty example.
    """
    pretraining, training = parameters.num_pretraining, parameters.num_training
    if pretraining < 1 or training < 2:
        raise LabError(f"num_pretraining and num_training are {pretraining} and {training}; expected at least 1 and 2")
    if not 0 <= parameters.fault_share < 1:
        raise LabError(f"fault_share is {parameters.fault_share}; expected 0 to below 1")
    if not 0 < 2 * parameters.max_tokens <= parameters.budget_tokens:
        raise LabError(
            f"max_tokens is {parameters.max_tokens} and budget_tokens {parameters.budget_tokens}; a pack has to "
            "hold a faulty example too, which may be twice as long as a clean one"
        )


def open_image_text_data(
    parameters: PictureTuningParameters,
    pretrained: PretrainedImageText,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ImageTextData:
    """Plant the faults and open the losses; the first call scores, with the pretrained model as it was opened.

    Raises:
        LabError: as `check_image_text`, `plant_faults` and `open_losses`.
    """
    check_image_text(parameters)
    clean = pretrained.instructions
    planted = plant_faults(clean.samples, share=parameters.fault_share, seed=parameters.fault_seed)
    split = replace(clean, samples=planted.samples)
    kept = clean.store.sha256 if clean.store else ""
    sha256 = samples_sha256(planted.samples)
    identity = json.dumps([pretrained.scorer.sha256, kept, sha256, parameters.budget_tokens])
    name = f"{pretrained.folder.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    scores = pretrained.folder.parent / "scores" / name
    options = ScoringOptions(
        budget_tokens=parameters.budget_tokens,
        without_prompt=True,
        part_samples=_PART_SAMPLES,
        precision=parameters.precision,
    )
    answers = Answers(split, pretrained.model, pretrained.scorer)
    losses, _ = open_losses(scores, lambda: answers, split.samples, options, progress=progress)
    return ImageTextData(
        train=planted.samples,
        faults=planted.faults,
        losses=losses,
        split=split,
        sha256=sha256,
        scores=scores,
    )
