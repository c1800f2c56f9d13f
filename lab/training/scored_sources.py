"""`lab score`: instructions by name or in a table, by a language model by name; or pictures, by a study's own model."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from lab.data.filters.filtering import LeftOut
from lab.data.filters.loss_filters import normality, read_losses
from lab.data.instructions.instructions import read_instructions
from lab.data.instructions.tables import read_instruction_table
from lab.data.sample import Sample
from lab.data.sources import check_source, is_source
from lab.errors import LabError
from lab.parts.chat_codec import as_chat_model
from lab.training.curricula import IMAGE
from lab.training.image_text_model import image_text_splits, open_pretrained
from lab.training.language_models import open_language_model, text_writer
from lab.training.loop import choose_device
from lab.training.packed_losses import ScoringOptions
from lab.training.parameters import PictureTuningParameters
from lab.training.scoring import Answers, score, text_answers
from lab.training.vision import open_vision_encoder

TABLE = ".parquet"
PRETRAINS = "opening the model; one of the project's own is pretrained first, in some minutes, where it is not there"
PLAIN = ScoringOptions()


def score_source(
    source: str,
    out: Path,
    *,
    model: str,
    options: ScoringOptions = PLAIN,
    limit: int | None = None,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> None:
    """Score a source, saying how far it is, what was left out, and how far the losses are from a Gaussian.

    Raises:
        LabError: a source of pictures, or as `read_instructions`, `read_instruction_table`, `score` and
            `open_language_model`.
    """
    instructions, skipped = _opened(source, limit)
    where = choose_device(device)
    say(PRETRAINS)
    language_model = as_chat_model(open_language_model(model))
    network: nn.Module = language_model.model
    network.to(where)
    answers = text_answers(language_model, text_writer(model))
    _score(answers, instructions, skipped, out, options, what="instructions", say=say)


def score_picture_source(
    source: str,
    out: Path,
    parameters: PictureTuningParameters,
    *,
    options: ScoringOptions = PLAIN,
    limit: int | None = None,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> None:
    """Score pictures with questions by a study's pretrained model, saying the same; it is made where it is not there.

    Of the source that the model was trained on, those behind its own examples are scored, as the study has them but
    without a fault; of another one the first of its training side.

    Args:
        source: in `SAMPLE_SOURCES` with its options, or FORM@hub:OWNER/NAME.
        out: a folder of this scoring alone.
        parameters: of a cell of that study (`loss_filter_images`).
        options: of the scoring; its precision is the model's too.
        limit: examples at most; as many as the study fine-tunes on where None.
        device: of the model.
        say: told each line.

    Raises:
        LabError: an unknown source, a limit below 1, or as `open_pretrained` and `score`.
    """
    _check_limit(limit, "example")
    check_source(source)
    computed: dict[str, Any] = {"precision": options.precision, "device": device}
    cell = replace(parameters, **computed, measure_dev=False)
    encoder = open_vision_encoder(cell.vision_encoder, image_size=cell.image_size, stride=cell.stride)
    images = image_text_splits(cell, encoder)[IMAGE]
    language_model = open_language_model(cell.language_model, pretraining_steps=cell.pretraining_steps)

    def told(done: int, total: int, loss: float) -> None:
        if done % 50 == 0 or done == total:
            say(f"pretrained model: step {done} of {total}, loss {loss:.3f}")

    pretrained = open_pretrained(cell, images, encoder, language_model, progress=told)
    count = limit or cell.num_training
    if source == cell.images:
        split = replace(pretrained.instructions, samples=pretrained.instructions.samples[:count])
    else:
        # Whose test split is opened beside it does not matter; the study's own is there.
        tested = cell.test_source or cell.images
        asked = replace(cell, images=source, num_pretraining=0, num_training=count, test_source=tested)
        split = image_text_splits(asked, encoder)[IMAGE]
    answers = Answers(split, pretrained.model, pretrained.scorer)
    _score(answers, split.samples, LeftOut(), out, options, what="examples", say=say)


def _score(
    answers: Answers,
    samples: Iterable[Sample],
    skipped: LeftOut,
    out: Path,
    options: ScoringOptions,
    *,
    what: str,
    say: Callable[[str], None],
) -> None:
    summary = score(answers, samples, out, options=options, progress=lambda done: say(f"{done:,} {what}"))
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in (skipped.counts() + summary.skipped).items())
    say(
        f"{summary.num_scored:,} {what} scored by {answers.scorer.name} ({summary.num_tokens:,} tokens of answers; "
        f"{summary.parts_found} of {summary.parts_found + summary.parts_made} parts were there): {out}"
    )
    say(f"left out: {left_out or 'none'}")
    if summary.num_scored > 1:
        say(f"losses, nats a token: {normality(read_losses(out).losses)}")


def _opened(source: str, limit: int | None) -> tuple[Iterable[Sample], LeftOut]:
    if is_source(source):
        raise LabError(f"source {source!r} is of pictures or video, which a language model cannot see; add --images")
    if not source.endswith(TABLE):
        if Path(source).is_file():
            raise LabError(f"{source} is no Parquet table; expected a file that ends with {TABLE}, or a source by name")
        reading = read_instructions(source, limit=limit)
        return reading.samples, reading.left_out
    _check_limit(limit, "instruction")
    return islice(read_instruction_table(Path(source)), limit), LeftOut()


def _check_limit(limit: int | None, what: str) -> None:
    if limit is not None and limit < 1:
        raise LabError(f"limit is {limit}; expected at least 1 {what}, or none for all")
