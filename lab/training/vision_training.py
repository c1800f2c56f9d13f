"""A vision cell's training: its stages one after the other, each from the weights of the last, with their ancestry.

Section 3 of the paper. A stage that is done is kept beside the cell's checkpoint until the cell is, so that a cell that
is killed goes on in the stage that it was in.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lab.parts.omni_model import OmniModel
from lab.paths import write_whole
from lab.training.ancestry import Ancestry, load_stage, read_ancestry, save_stage
from lab.training.curricula import IMAGE
from lab.training.loop import TrainingRecord, peak_memory_bytes
from lab.training.parameters import VisionParameters
from lab.training.samples import SampleExamples
from lab.training.stage_batches import StageBatches
from lab.training.stage_loop import stage_options, train_stage
from lab.training.stages import stages_by_name
from lab.training.vision_cell import IMAGE_BRANCH, cell_stages


@dataclass
class CellTraining:
    """What the stages gave, one behind the other: losses and learning rates of every step, and what they cost."""

    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    lm_tokens: int = 0
    decoded_frames: int = 0
    padding_share: float = 0.0
    ancestry: list[dict[str, Any]] = field(default_factory=list)
    packing_certificates: list[dict[str, Any]] = field(default_factory=list)
    """Of a packed training, one a stage and kind of data."""

    def results(self) -> dict[str, float]:
        """What stands in the results file; no loss where nothing was trained."""
        last = self.losses[-20:]
        return {
            **({"training_loss": sum(last) / len(last)} if last else {}),
            "training_seconds": self.seconds,
            "lm_tokens": self.lm_tokens,
            "decoded_frames": self.decoded_frames,
            "padding_share": self.padding_share,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def train_vision_cell(
    model: OmniModel,
    data: Mapping[str, SampleExamples],
    parameters: VisionParameters,
    *,
    checkpoint: Path,
    on_step: Callable[[int, float], None] | None = None,
) -> CellTraining:
    """Train a cell's stages.

    Args:
        model: as `build_vision_model` made it.
        data: as `vision_cell_data` opened it.
        parameters: of the cell.
        checkpoint: where an interrupted cell is kept; all of it is deleted when the training is done.
        on_step: told each step, counted over all stages, and its loss.

    Raises:
        LabError: as `StageBatches`, its `certificates`, and `train_stage`.
    """
    if not (parameters.max_frames or parameters.train_language_model):
        # Nothing is seen and the language model is frozen: what it answers by itself is the baseline.
        return CellTraining(peak_memory_bytes=peak_memory_bytes(next(model.parameters()).device))
    stages, parts = stages_by_name(cell_stages(parameters)), model.parts()
    done: list[dict[str, Any]] = []
    ancestry: Ancestry = ()
    files: dict[str, Path] = {}
    batches_before: list[StageBatches] = []
    for stage in stages.values():
        weights = checkpoint.with_name(f"{checkpoint.stem}-{stage.name}.safetensors")
        record_file = weights.with_suffix(".json")
        batches = StageBatches(
            {**data, IMAGE: _images(data, stage.name)} if IMAGE in data else data,
            model,
            stage,
            parameters.batch_tokens,
            parameters.seed,
            parameters.batch_size,
            parameters.packed,
            precision=parameters.precision,
            earlier=tuple(batches_before),
        )
        batches_before.append(batches)
        if stage.starts_from:
            ancestry = load_stage(stage, parts, {name: files[name] for name in stage.starts_from}, stages)
            if stage.starts_from == (IMAGE_BRANCH,):
                model.start_video_projector_from_image()
        if not record_file.exists():
            options = stage_options(
                stage,
                warmup_steps=min(parameters.warmup_steps, (stage.steps or 1) - 1),
                weight_decay=parameters.weight_decay,
                checkpoint_every=parameters.checkpoint_every,
                precision=parameters.precision,
            )
            certificates = [
                {"stage": stage.name, "kind": kind, **certificate.artifact()}
                for kind, certificate in batches.certificates().items()
            ]
            record = train_stage(
                model,
                parts,
                stage,
                batches.loss,
                options,
                ancestry=ancestry,
                checkpoint=checkpoint,
                on_step=_behind(on_step, sum(len(earlier["losses"]) for earlier in done)),
            )
            save_stage(weights, parts, stage, ancestry)
            write_whole(record_file, json.dumps({**_facts(record, batches), "packing_certificates": certificates}))
        done.append(json.loads(record_file.read_text(encoding="utf-8")))
        files[stage.name] = weights
    ancestry = read_ancestry(list(files.values())[-1])
    for path in files.values():
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
    return CellTraining(
        losses=[loss for record in done for loss in record["losses"]],
        learning_rates=[rate for record in done for rate in record["learning_rates"]],
        seconds=sum(record["seconds"] for record in done),
        peak_memory_bytes=peak_memory_bytes(next(model.parameters()).device),
        lm_tokens=sum(record["lm_tokens"] for record in done),
        decoded_frames=sum(record["decoded_frames"] for record in done),
        padding_share=sum(r["padding_share"] * len(r["losses"]) for r in done) / sum(len(r["losses"]) for r in done),
        packing_certificates=[one for record in done for one in record["packing_certificates"]],
        ancestry=[{**asdict(link), "sha256": link.sha256} for link in ancestry],
    )


def _behind(on_step: Callable[[int, float], None] | None, steps: int) -> Callable[[int, float], None] | None:
    """Told a stage's steps, it tells those of the cell."""
    return None if on_step is None else lambda step, loss: on_step(steps + step, loss)


def _images(data: Mapping[str, SampleExamples], stage: str) -> SampleExamples:
    """In the image branch, pictures pass through the visual projector."""
    return replace(data[IMAGE], branch="visual_projector") if stage == IMAGE_BRANCH else data[IMAGE]


def _facts(record: TrainingRecord, batches: StageBatches) -> dict[str, Any]:
    tokens, frames = batches.costs()
    return {
        "losses": record.losses,
        "learning_rates": record.learning_rates,
        "seconds": record.seconds,
        "lm_tokens": tokens,
        "decoded_frames": frames,
        "padding_share": batches.padding_share(),
    }
