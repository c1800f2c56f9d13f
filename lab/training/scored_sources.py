"""`lab score`: instructions by name or in a table, by a language model by name."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from torch import nn

from lab.data.filters.loss_fit import normality
from lab.data.filters.losses import read_losses
from lab.data.instructions.instruction import Instruction
from lab.data.instructions.instructions import read_instructions
from lab.data.instructions.tables import read_instruction_table
from lab.errors import LabError
from lab.parts.chat_codec import as_chat_model
from lab.training.character_model import DEFAULT_STEPS
from lab.training.loop import choose_device
from lab.training.packed_losses import ScoringOptions
from lab.training.scored_parts import ScoringSummary
from lab.training.scoring import score_instructions
from lab.training.vision_examples import EXAMPLES, HUB
from lab.training.vision_words import WORDS, open_vision_language_model, text_writer
from lab.training.world_pretraining import WorldOptions

TABLE = ".parquet"


def score_source(
    source: str,
    out: Path,
    *,
    model: str,
    limit: int | None = None,
    without_prompt: bool = False,
    budget_tokens: int = 1024,
    precision: str = "auto",
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> None:
    """Score a source, saying how far it is, what was left out, and how far the losses are from a Gaussian.

    Raises:
        LabError: a source of pictures, or as `read_instructions`, `read_instruction_table`, `score_instructions` and
            `open_language_model`.
    """
    options = ScoringOptions(budget_tokens=budget_tokens, without_prompt=without_prompt, precision=precision)
    instructions, skipped = _opened(source, limit)
    where = choose_device(device)
    steps = WorldOptions().steps if model == WORDS else DEFAULT_STEPS
    language_model = as_chat_model(open_vision_language_model(model, pretraining_steps=steps))
    network: nn.Module = language_model.model
    network.to(where)
    summary = score_instructions(
        instructions,
        language_model,
        out,
        write=text_writer(model),
        options=options,
        progress=lambda done: say(f"{done:,} instructions"),
    )
    report(summary, skipped, out, what="instructions", model=model, say=say)


def report(
    summary: ScoringSummary,
    skipped: Counter[str],
    out: Path,
    *,
    what: str,
    model: str,
    say: Callable[[str], None],
) -> None:
    """Say what a scoring came to."""
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in (skipped + summary.skipped).items())
    say(
        f"{summary.num_scored:,} {what} scored by {model} ({summary.num_tokens:,} tokens of answers; "
        f"{summary.parts_found} of {summary.parts_found + summary.parts_made} parts were there): {out}"
    )
    say(f"left out: {left_out or 'none'}")
    if summary.num_scored > 1:
        say(f"losses, nats a token: {normality(read_losses(out).losses)}")


def _opened(source: str, limit: int | None) -> tuple[Iterable[Instruction], Counter[str]]:
    if HUB in source or source.partition(":")[0] in EXAMPLES:
        raise LabError(f"source {source!r} is of pictures or video, which a language model cannot see; add --images")
    if not source.endswith(TABLE):
        reading = read_instructions(source, limit=limit)
        return reading.instructions, reading.skipped
    check_limit(limit, "instruction")
    return islice(read_instruction_table(Path(source)), limit), Counter()


def check_limit(limit: int | None, what: str) -> None:
    """Refuse a limit that leaves nothing.

    Raises:
        LabError: below 1.
    """
    if limit is not None and limit < 1:
        raise LabError(f"limit is {limit}; expected at least 1 {what}, or none for all")
