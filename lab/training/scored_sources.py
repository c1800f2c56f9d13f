"""`lab score`: instructions by name or in a table, by a language model by name; or pictures, by a study's own model."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from lab.data.filters.filtering import LeftOut
from lab.data.filters.loss_filters import normality, read_losses
from lab.data.instructions.instructions import read_instruction_table, read_instructions
from lab.data.sample import Sample
from lab.data.sources import check_source, is_source
from lab.errors import LabError
from lab.parts.language_models import as_chat_model
from lab.training.cell import IMAGE, seen_data
from lab.training.loop import choose_device
from lab.training.named_parts import open_language_model
from lab.training.parameters import PictureTuningParameters
from lab.training.scoring import PLAIN, Scorer, ScoringOptions, score, text_scorer
from lab.training.tuning import as_vision, open_pretrained, picture_scorer, quiet

TABLE = ".parquet"
PRETRAINS = "opening the model; one of the project's own is pretrained first, in some minutes, where it is not there"


def score_source(
    source: str,
    out: Path,
    *,
    model: str | PictureTuningParameters,
    options: ScoringOptions = PLAIN,
    limit: int | None = None,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> None:
    """Score a source, saying how far it is, what was left out, and how far the losses are from a Gaussian.

    Args:
        source: instructions by name or a table of them; of pictures, a name with options or FORM@hub:OWNER/NAME.
        model: a language model by name; for pictures a cell of the study whose pretrained model scores.
        options: of the scoring; its precision is the pretrained model's too.
        limit: samples at most; None: all, of pictures as many as the study fine-tunes on.

    Raises:
        LabError: a source that the model cannot read, a limit below 1, or as `score`.
    """
    what = "instructions" if isinstance(model, str) else "examples"
    if limit is not None and limit < 1:
        raise LabError(f"limit is {limit}; expected at least 1, or none for all")
    samples: Iterable[Sample]
    if isinstance(model, str):
        samples, skipped = _instructions(source, limit)
        say(PRETRAINS)
        scorer = text_scorer(as_chat_model(open_language_model(model)), choose_device(device))
    else:
        computed: dict[str, Any] = {"precision": options.precision, "device": device}
        scorer = _of_pictures(source, limit, replace(model, **computed, measure_dev=False), say)
        samples, skipped = scorer.reads.samples, LeftOut()
    summary = score(scorer, samples, out, options=options, progress=lambda done: say(f"{done:,} {what}"))
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in (skipped.counts() + summary.skipped).items())
    say(
        f"{summary.num_scored:,} {what} scored by {scorer.name} ({summary.num_tokens:,} tokens of answers; "
        f"{summary.parts_found} of {summary.parts_found + summary.parts_made} parts were there): {out}"
    )
    say(f"left out: {left_out or 'none'}")
    if summary.num_scored > 1:
        losses = read_losses(out).losses
        mean_and_std = f"mean {losses.mean():.3f}, standard deviation {losses.std():.3f}"
        say(f"losses, nats a token: {mean_and_std}; {normality(losses)}")


def _instructions(source: str, limit: int | None) -> tuple[Iterable[Sample], LeftOut]:
    if is_source(source):
        raise LabError(f"source {source!r} is of pictures or video, which a language model cannot see; add --images")
    if source.endswith(TABLE):
        left_out = LeftOut()
        return islice(read_instruction_table(Path(source), left_out), limit), left_out
    if Path(source).is_file():
        raise LabError(f"{source} is no Parquet table; expected a file that ends with {TABLE}, or a source by name")
    reading = read_instructions(source, limit=limit)
    return reading.samples, reading.left_out


def _of_pictures(source: str, limit: int | None, cell: PictureTuningParameters, say: Callable[[str], None]) -> Scorer:
    """The study's pretrained model with what it is to read.

    Of the source that it was trained on, those behind its own examples, as the study has them but without a fault; of
    another one the first of its training side.
    """
    check_source(source)

    def told(done: int, total: int, loss: float) -> None:
        if done % 50 == 0 or done == total:
            say(f"pretrained model: step {done} of {total}, loss {loss:.3f}")

    start = open_pretrained(cell, say=lambda what: told if what.startswith("pretrained") else quiet(what))
    scorer, count = picture_scorer(cell, start), limit or cell.num_training
    if source == cell.images:
        return replace(scorer, reads=replace(start.train, samples=start.train.samples[:count]))
    # Whose test split is opened beside it does not matter; the study's own is there.
    tested = cell.test_source or cell.images
    asked = replace(cell, images=source, num_pretraining=0, num_training=count, test_source=tested)
    return replace(scorer, reads=seen_data(as_vision(asked), start.opened["vision_encoder"])[IMAGE])
