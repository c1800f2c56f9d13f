"""Samples with the losses that filters read: of a study that was run, or of a folder that `lab score` wrote.

Section 3 of the paper (the filter of the fine-tuning data).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float
from numpy import ndarray

from lab.data.filters.losses import Losses, loss_files
from lab.data.instructions.instructions import read_instructions
from lab.errors import LabError
from lab.study.ablation import Ablation, load_ablation
from lab.study.results import load_utterances
from lab.training.image_text_data import as_instruction
from lab.training.vision_example import Sight, VisionExample
from lab.training.vision_examples import EXAMPLES, HUB, open_examples

OF_PICTURES = "loss_filter_images"
"""The study whose model `lab score --images` scores with; behind its examples stand those that are scored."""


@dataclass(frozen=True, kw_only=True)
class ScoredSamples:
    """Instructions with the losses of their answers (nats a token); `faults`: what was planted, `clean` for nothing."""

    ids: Sequence[str]
    prompts: Sequence[str]
    answers: Sequence[str]
    losses: Float[ndarray, " samples"]
    losses_without_prompt: Float[ndarray, " samples"] | None = None
    faults: Sequence[str] | None = None
    examples: Sequence[VisionExample] | None = None
    """The pictures that they are about, where they are about some; their questions are the clean ones."""

    def judged(self) -> Losses:
        """What filters judge of them."""
        return Losses(self.ids, self.losses, self.losses_without_prompt)


def samples_of_study(ablation: Ablation, rung: str) -> ScoredSamples:
    """What the cells of a loss-filter study chose from, out of any finished cell's own table.

    Raises:
        LabError: no cell has been run on this machine.
    """
    frame = load_utterances(ablation, rung)
    frame = frame[frame["split"] == "train"]
    row = frame["row"].iloc[0]
    first = frame[(frame["row"] == row) & (frame["seed"] == frame["seed"].iloc[0])]
    parameters = ablation.resolve(row, rung)
    without = first["loss_without_prompt"].to_numpy(np.float64)
    ids = first["question"].tolist()
    shown = _examples(parameters["images"], parameters, len(ids)) if "images" in parameters else {}
    return ScoredSamples(
        ids=ids,
        prompts=first["prompt"].tolist(),
        answers=first["answer"].tolist(),
        losses=first["loss"].to_numpy(np.float64),
        losses_without_prompt=None if np.isnan(without).any() else without,
        faults=first["kind"].tolist(),
        examples=[shown[key] for key in ids] if shown else None,
    )


def samples_of_scoring(folder: Path, source: str) -> ScoredSamples:
    """What `lab score SOURCE --out FOLDER` wrote, with the texts of the source again, and with `--images` its pictures.

    Raises:
        LabError: as `loss_files` and `read_instructions`, or a sample that the source no longer has.
    """
    scored = pq.read_table(loss_files(folder))
    ids = scored["id"].to_pylist()
    shown: dict[str, VisionExample] = {}
    if source.partition(":")[0] in EXAMPLES or HUB in source:
        shown = _examples(source, load_ablation(OF_PICTURES).base, len(ids))
        by_id = {key: as_instruction(example) for key, example in shown.items()}
    else:
        by_id = {one.id: one for one in read_instructions(source).instructions}
    if missing := [key for key in ids if key not in by_id]:
        raise LabError(f"{source!r} has no sample {missing[0]!r}, which was scored in {folder}; name its own source")
    without = scored["loss_without_prompt"].to_numpy().astype(np.float64)
    return ScoredSamples(
        ids=ids,
        prompts=[by_id[key].prompt for key in ids],
        answers=[by_id[key].answer for key in ids],
        losses=scored["loss"].to_numpy(),
        losses_without_prompt=None if np.isnan(without).any() else without,
        examples=[shown[key] for key in ids] if shown else None,
    )


def _examples(source: str, parameters: Mapping[str, Any], count: int) -> dict[str, VisionExample]:
    """Those of a source that may have been scored, by id; nothing is drawn before it is looked at."""
    wanted = parameters["num_pretraining"] + max(parameters["num_training"], count)
    sight = Sight(frame_size=parameters["frame_size"])
    return {one.id: one for one in open_examples(source, "train", wanted, sight)}
