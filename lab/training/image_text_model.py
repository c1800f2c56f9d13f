"""The pretrained model of a fine-tuning study on pictures: it scores the instructions and is what a cell starts from.

Section 3 of the paper, where one pretrained model does both. Here it is trained on the first examples of the training
side, clean ones that are never fine-tuned on; made once, under a lock, and kept in the cache.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lab.data.sources import SAMPLES_VERSION, sources_sha256
from lab.errors import LabError
from lab.parts.language_models import LanguageModel
from lab.parts.omni_model import OmniModel
from lab.parts.vision_encoders import VisionEncoder
from lab.paths import cache_dir, make_folder, write_whole
from lab.training.ancestry import Ancestry, load_stage, save_stage
from lab.training.batches import BatchOptions
from lab.training.curricula import IMAGE, PRETRAINING, image_text_stages
from lab.training.loop import TrainingOptions, choose_device, choose_precision
from lab.training.parameters import PictureTuningParameters, VisionParameters
from lab.training.samples import SampleExamples
from lab.training.scoring import Scorer
from lab.training.stage_training import train_stages
from lab.training.vision_cell import build_vision_model, vision_cell_data

# Raise it when the same parameters would give another model.
MODEL_VERSION = 1
WEIGHTS, FACTS = "weights.safetensors", "facts.json"
WARMUP_SHARE = 0.1
# With the sources' and the encoder's hashes, what decides the pretrained weights. `num_training` does as features are
# standardised over all pictures of the training side.
_DECIDING = (
    "images",
    "num_pretraining",
    "num_training",
    "max_tokens",
    "image_size",
    "stride",
    "frame_size",
    "projector",
    "pool_size",
    "padding",
    "marks_places",
    "train_language_model",
    "scorer_steps",
    "scorer_seed",
    "budget_tokens",
    "learning_rate",
    "language_model_learning_rate",
    "weight_decay",
)


def vision_parameters(cell: PictureTuningParameters) -> VisionParameters:
    """The same cell as one of a study of images alone, a step being a pack."""
    every = cell.as_dict()
    return VisionParameters(
        **{name: every[name] for name in VisionParameters.names() if name in every},
        curriculum="image",
        num_images=cell.num_pretraining + cell.num_training,
        videos="",
        num_videos=0,
        batch_tokens=cell.budget_tokens,
        train_encoder=False,
        # These decide nothing of a picture; as in the other studies of images, so that views are shared.
        max_frames=8,
        frames_per_second=1.0,
        max_tiles=1,
        fit="pad",
        unpad=False,
        newline=False,
    )


@dataclass(frozen=True, kw_only=True)
class PretrainedImageText:
    """The pretrained model on the cell's device, where its weights come from, and the examples that it is not of.

    `instructions` are the clean examples to fine-tune on; `facts` say what it was trained on, and what was left out.
    """

    model: OmniModel
    scorer: Scorer
    ancestry: Ancestry
    instructions: SampleExamples
    facts: Mapping[str, Any]
    folder: Path


def image_text_splits(
    parameters: PictureTuningParameters, encoder: VisionEncoder, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, SampleExamples]:
    """The pictures of a study: `image_text` (the training side, pretraining first), `test`, and `dev` where measured.

    Raises:
        LabError: as `vision_cell_data`.
    """
    return vision_cell_data(vision_parameters(parameters), encoder, progress=progress)


def open_pretrained(
    parameters: PictureTuningParameters,
    images: SampleExamples,
    encoder: VisionEncoder,
    language_model: LanguageModel,
    *,
    progress: Callable[[int, int, float], None] | None = None,
) -> PretrainedImageText:
    """Open the pretrained model; the first call trains it.

    Args:
        parameters: of a cell.
        images: the training side of `image_text_splits`.
        encoder: of the pictures' features.
        language_model: afresh; the model's own from here on, so that training changes it.
        progress: told the pretraining's steps.

    Raises:
        LabError: fewer examples than two to fine-tune on or one to pretrain on, or as `build_vision_model`,
            `train_stages` and `load_stage`.
    """
    device = choose_device(parameters.device)
    torch.manual_seed(parameters.scorer_seed)
    model = build_vision_model(vision_parameters(parameters), encoder, language_model, {IMAGE: images}).to(device)
    first, instructions, left_out = _parted(images, model, parameters)
    stage, following = image_text_stages(parameters)
    folder = _folder(parameters, encoder, language_model, device)

    def make(made: Path) -> None:
        told = (lambda step, loss: progress(step + 1, parameters.scorer_steps, loss)) if progress else None
        record = train_stages(
            model,
            [stage],
            {IMAGE: first},
            TrainingOptions(
                warmup_steps=round(WARMUP_SHARE * stage.length()),
                weight_decay=parameters.weight_decay,
                checkpoint_every=parameters.checkpoint_every,
                precision=parameters.precision,
            ),
            batches=BatchOptions(tokens=parameters.budget_tokens, packed=True),
            seed=parameters.scorer_seed,
            checkpoint=folder.with_suffix(".checkpoint"),
            on_step=told,
        )
        save_stage(made / WEIGHTS, model.parts(), record.ancestry)
        facts = {
            "source": parameters.images,
            "pretrained_on": len(first),
            "left_out": dict(left_out),
            "parameters": {name: getattr(parameters, name) for name in _DECIDING},
            **{f"pretraining_{name}": value for name, value in (record.results() | record.costs()).items()},
        }
        write_whole(made / FACTS, json.dumps(facts, indent=1) + "\n")

    make_folder(folder, make)
    start = {PRETRAINING: folder / WEIGHTS}
    ancestry = load_stage(following, model.parts(), start, {PRETRAINING: stage})
    model.eval()
    return PretrainedImageText(
        model=model,
        scorer=Scorer(f"{PRETRAINING} of {parameters.images}", ancestry[-1].sha256),
        ancestry=ancestry,
        instructions=instructions,
        facts=json.loads((folder / FACTS).read_text(encoding="utf-8")),
        folder=folder,
    )


def _parted(
    images: SampleExamples, model: OmniModel, parameters: PictureTuningParameters
) -> tuple[SampleExamples, SampleExamples, Counter[str]]:
    """Examples to pretrain on and to fine-tune on; a group that the first have begun is in none of the second."""
    first, rest = images.samples[: parameters.num_pretraining], images.samples[parameters.num_pretraining :]
    begun = {sample.group for sample in first}
    left_out: Counter[str] = Counter()
    chosen: dict[str, list[int]] = {"pretraining": [], "fine-tuning": []}
    for index in range(len(images)):
        pretraining = index < len(first)
        reason = images.why_not_readable(index, model, max_tokens=parameters.max_tokens)
        if reason is None and not pretraining and images.samples[index].group in begun:
            reason = "of a group that was pretrained on"
        if reason is None:
            chosen["pretraining" if pretraining else "fine-tuning"].append(index)
        else:
            left_out[reason] += 1
    for (what, indices), given, least in zip(chosen.items(), (first, rest), (1, 2), strict=True):
        if len(indices) < least:
            why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
            raise LabError(
                f"{len(indices)} of {len(given)} examples of {parameters.images!r} can be read for {what}, fewer "
                f"than {least}; left out: {why or 'none'}"
            )
    parts = [replace(images, samples=[images.samples[i] for i in indices]) for indices in chosen.values()]
    return parts[0], parts[1], left_out


def _folder(
    parameters: PictureTuningParameters, encoder: VisionEncoder, language_model: LanguageModel, device: torch.device
) -> Path:
    facts = {name: getattr(parameters, name) for name in _DECIDING}
    made_of = [sources_sha256(parameters.images), SAMPLES_VERSION, encoder.key, language_model.sha256]
    computed = [device.type, choose_precision(parameters.precision, device)]
    identity = json.dumps([MODEL_VERSION, facts, made_of, computed], sort_keys=True)
    name = f"image_text-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    return cache_dir() / "vision_language_models" / name
