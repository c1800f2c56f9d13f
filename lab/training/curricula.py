"""The stages that the studies train in, of sound, text, pictures and video (section 3 of the paper).

Of a video branch, the curricula that Table 10 compares: in which order it sees images and video; the paper's is
image-text first, then both mixed. All have the same number of steps, and a step has the same number of language-model
tokens whatever its data, so they cost the same; an image gives fewer decoded frames a token than a video, which is
counted and reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.errors import LabError, choose
from lab.training.parameters import PictureTuningParameters
from lab.training.stages import Stage, stages_by_name

IMAGE, VIDEO, AUDIO, INSTRUCTIONS = "image_text", "video_text", "asr_audio_text", "instructions"
PRETRAINING, FINE_TUNING = "image_text_pretraining", "image_text_fine_tuning"


@dataclass(frozen=True)
class Leg:
    """A stretch of a curriculum on one mixture of data; `first` is the one that a `first_share` is the length of."""

    kinds: tuple[str, ...]
    first: bool = False


CURRICULA: dict[str, tuple[Leg, ...]] = {
    # Video-text from the start: the paper's "without video pretraining".
    "direct": (Leg((VIDEO,)),),
    # The paper's.
    "staged": (Leg((IMAGE,), first=True), Leg((IMAGE, VIDEO))),
    # Controls that the paper lacks: the images without the order, and the order without images behind it.
    "mixed": (Leg((IMAGE, VIDEO)),),
    "image_then_video": (Leg((IMAGE,), first=True), Leg((VIDEO,))),
    # For studies of images.
    "image": (Leg((IMAGE,)),),
}


def curriculum_stages(
    name: str,
    *,
    steps: int,
    first_share: float,
    image_share: float,
    learning_rates: Mapping[str, float],
    frozen: tuple[str, ...] = (),
    schedule: str = "cosine",
) -> tuple[Stage, ...]:
    """The stages of a curriculum, `steps` in all.

    Args:
        name: a key of `CURRICULA`.
        steps: of all stages together.
        first_share: share of the steps that a first stage on image-text has.
        image_share: share of image-text among the tokens where both are mixed.
        learning_rates: peak of each part that trains, in every stage.
        frozen: the parts that do not.
        schedule: of every stage, a key of `stages.SCHEDULES`.

    Raises:
        LabError: an unknown curriculum, a share outside 0 to 1, or too few steps for its stages.
    """
    legs = choose(CURRICULA, name, "curriculum")
    for what, share in (("first_share", first_share), ("image_share", image_share)):
        if not 0 < share < 1:
            raise LabError(f"{what} is {share}; expected a share above 0 and below 1")
    if steps < len(legs):
        raise LabError(f"curriculum {name!r} has {len(legs)} stages; {steps} steps are too few")
    first = min(max(round(first_share * steps), 1), steps - 1) if len(legs) > 1 else steps
    stages: list[Stage] = []
    for leg in legs:
        weights = {IMAGE: image_share, VIDEO: 1 - image_share} if len(leg.kinds) > 1 else dict.fromkeys(leg.kinds, 1.0)
        stages.append(
            Stage(
                name=f"{name}_{len(stages) + 1}",
                paper="section 3, video-language branch; steps, shares and learning rates are this study's",
                trained=tuple(learning_rates),
                frozen=frozen,
                learning_rates=dict(learning_rates),
                data=weights,
                steps=first if leg.first else steps - first if len(legs) > 1 else steps,
                schedule=schedule,
                starts_from=(stages[-1].name,) if stages else (),
            )
        )
    return tuple(stages_by_name(stages).values())


def audio_stage(*, steps: int, learning_rate: float, train_encoder: bool = False) -> Stage:
    """The audio branch: its projector is trained, and an encoder inside the model where asked for, as in the paper.

    Raises:
        LabError: as `Stage`.
    """
    trained = ("audio_projector", *(("audio_encoder",) if train_encoder else ()))
    return _of_a_study(
        "audio",
        "section 3, audio-language branch",
        learning_rates=dict.fromkeys(trained, learning_rate),
        frozen=("language_model",),
        data={AUDIO: 1.0},
        steps=steps,
    )


def instruction_stage(*, steps: int, learning_rate: float) -> Stage:
    """Fine-tuning of the language model on what a filter leaves of instructions.

    Raises:
        LabError: as `Stage`.
    """
    rates = {"language_model": learning_rate}
    where = "section 3, supervised fine-tuning"
    return _of_a_study("fine_tuning", where, learning_rates=rates, data={INSTRUCTIONS: 1.0}, steps=steps)


def image_text_stages(parameters: PictureTuningParameters) -> tuple[Stage, Stage]:
    """The stage that makes the pretrained model of a study of filtered pictures, and that of a cell, which follows it.

    Both train the same parts at the same peaks, so that what was pretrained is trained further as it is.

    Raises:
        LabError: as `Stage`.
    """
    rates = {"visual_projector": parameters.learning_rate}
    if parameters.train_language_model:
        rates["language_model"] = parameters.language_model_learning_rate
    every = ("visual_projector", "video_projector", "language_model", "vision_encoder")
    shared: dict[str, Any] = {
        "where": "section 3, image-language branch and supervised fine-tuning",
        "learning_rates": rates,
        "frozen": tuple(part for part in every if part not in rates),
        "data": {IMAGE: 1.0},
    }
    first = _of_a_study(PRETRAINING, steps=parameters.scorer_steps, **shared)
    return first, _of_a_study(FINE_TUNING, steps=parameters.steps, starts_from=(PRETRAINING,), **shared)


def _of_a_study(name: str, where: str, *, learning_rates: Mapping[str, float], **facts: Any) -> Stage:
    return Stage(
        name=name,
        paper=f"{where}; steps and learning rates are this study's",
        trained=tuple(learning_rates),
        learning_rates=learning_rates,
        schedule="cosine",
        **facts,
    )
