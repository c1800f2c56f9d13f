"""`lab score --images`: pictures with questions by name, scored by the pretrained model of a study that has one."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.training.curricula import IMAGE
from lab.training.image_text_model import image_text_splits, open_pretrained
from lab.training.image_text_scoring import score_images
from lab.training.language_models import open_language_model
from lab.training.packed_losses import ScoringOptions
from lab.training.scored_sources import check_limit, report
from lab.training.vision import open_vision_encoder
from lab.training.vision_examples import sources_sha256


def score_picture_source(
    source: str,
    out: Path,
    parameters: Mapping[str, Any],
    *,
    limit: int | None = None,
    without_prompt: bool = False,
    budget_tokens: int = 1024,
    precision: str = "auto",
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> None:
    """Score pictures with questions by a study's pretrained model, saying the same; it is made where it is not there.

    Of the source that the model was trained on, those behind its own examples are scored, as the study has them but
    without a fault; of another one the first of its training side.

    Args:
        source: in `EXAMPLES` with its options, or FORM@hub:OWNER/NAME.
        out: a folder of this scoring alone.
        parameters: of a cell of that study (`loss_filter_images`).
        limit: examples at most; as many as the study fine-tunes on where None.
        without_prompt: score each answer without picture and question too.
        budget_tokens: of a pack, and so of the longest example.
        precision: of the model and of the scoring.
        device: of both.
        say: told each line.

    Raises:
        LabError: an unknown source, a limit below 1, or as `open_pretrained` and `score_images`.
    """
    options = ScoringOptions(budget_tokens=budget_tokens, without_prompt=without_prompt, precision=precision)
    check_limit(limit, "example")
    sources_sha256(source)
    cell = {**parameters, "precision": precision, "device": device, "measure_dev": False}
    encoder = open_vision_encoder(cell["vision_encoder"], image_size=cell["image_size"], stride=cell["stride"])
    images = image_text_splits(cell, encoder)[IMAGE]
    language_model = open_language_model(cell["language_model"], pretraining_steps=cell["pretraining_steps"])

    def told(done: int, total: int, loss: float) -> None:
        if done % 50 == 0 or done == total:
            say(f"pretrained model: step {done} of {total}, loss {loss:.3f}")

    pretrained = open_pretrained(cell, images, encoder, language_model, progress=told)
    count = limit or cell["num_training"]
    if source == cell["images"]:
        split = replace(pretrained.instructions, examples=pretrained.instructions.examples[:count])
    else:
        # Whose test split is opened beside it does not matter; the study's own is there.
        asked = {"images": source, "num_pretraining": 0, "num_training": count}
        asked["test_source"] = cell["test_source"] or cell["images"]
        split = image_text_splits({**cell, **asked}, encoder)[IMAGE]
    summary = score_images(
        split,
        pretrained.model,
        pretrained.scorer,
        out,
        options=options,
        progress=lambda done: say(f"{done:,} examples"),
    )
    report(summary, Counter(), out, what="examples", model=pretrained.scorer.name, say=say)
