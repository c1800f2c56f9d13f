import json
import math

import pyarrow.parquet as pq
import pytest
import torch

from lab.data.filters.loss_filters import LOSS_COLUMNS, SUMMARY, read_losses
from lab.errors import LabError
from lab.parts.joined_sequences import answer_loss, pad_left
from lab.training import scoring
from lab.training.samples import NOT_READABLE, TOO_LONG
from lab.training.scoring import Scorer, ScoringOptions, score
from tests.parts.tiny_vision import seeing_model
from tests.training.vision_splits import example, split_of, various

FLOAT32 = {"precision": "float32"}
EXAMPLES = various("e", 7, frames=1)


def score_images(split, model, folder, sha256="0", **rest):
    return score(Scorer(model, "tiny", sha256, split), split.samples, folder, **rest)


def scored(folder):
    return {row["id"]: row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()}


def alone(model, split, index) -> float:
    """The mean loss of one example by itself, in a padded batch of one."""
    with torch.no_grad():
        found = model([split.example(index, model)])
    return float(found.loss / found.num_tokens)


def nothing_before(model, split, index) -> float:
    """The same of its answer behind nothing but the answer's start."""
    answer = split.answer_ids(split.samples[index].answer, model)
    ids = torch.tensor([*model.codec.start_ids, *answer])
    with torch.no_grad():
        row = model.language_model.get_input_embeddings()(ids)
        found = answer_loss(
            model.language_model, pad_left([row], [torch.arange(len(row))]), [answer], end_id=model.codec.end_id
        )
    return float(found.loss / found.num_tokens)


@pytest.mark.parametrize("branch", ["visual_projector", "video_projector"])
def test_every_loss_is_what_the_example_has_alone_with_and_without_picture_and_question(tmp_path, branch):
    model, split = seeing_model(), split_of(EXAMPLES, branch=branch)
    options = ScoringOptions(budget_tokens=40, part_samples=3, without_prompt=True, **FLOAT32)
    summary = score_images(split, model, tmp_path, options=options)
    found = scored(tmp_path)
    for index, one in enumerate(EXAMPLES):
        row = found[one.id]
        assert row["loss"] == pytest.approx(alone(model, split, index), rel=1e-4)
        assert row["loss_without_prompt"] == pytest.approx(nothing_before(model, split, index), rel=1e-4)
        # 2 x 2 tokens a picture, one a character.
        assert (row["num_tokens"], row["prompt_tokens"]) == (len(one.answer) + 1, 4 + len(one.question))
    assert (summary.num_scored, summary.parts_made) == (7, 3)
    assert pq.read_schema(tmp_path / "part-000000.parquet").remove_metadata() == LOSS_COLUMNS
    assert json.loads((tmp_path / SUMMARY).read_text())["model_sha256"] == "0"
    assert list(map(str, read_losses(tmp_path).ids)) == [f"e{n}" for n in range(7)]


def test_what_cannot_be_scored_is_counted_by_reason(tmp_path):
    bad = [
        example("silent", answer=" "),
        example("unasked", question=""),
        example("digits", answer="a1"),
        # A row of 4 + 2 + 1 + 13 tokens.
        example("long", answer="a" * 13),
    ]
    split, model = split_of([*bad, example("fits", answer="a" * 12)]), seeing_model()
    summary = score_images(split, model, tmp_path, options=ScoringOptions(budget_tokens=19, **FLOAT32))
    assert summary.num_scored == 1
    assert dict(summary.skipped) == {"empty answer": 1, "empty prompt": 1, NOT_READABLE: 1, TOO_LONG: 1}
    assert split.why_not_readable(3, model, max_tokens=20) is None
    with pytest.raises(LabError, match="no sample can be scored by 'tiny': 1 empty answer"):
        score_images(split_of(bad[:1]), model, tmp_path / "none")


def test_a_loss_that_is_not_finite_names_the_example(tmp_path):
    model = seeing_model()
    with torch.no_grad():
        model.language_model.get_input_embeddings().weight[model.codec.encode("d")[0]] = math.nan
    split = split_of([example("good"), example("bad", question="ad")])
    with pytest.raises(LabError, match="the loss of sample 'bad' by 'tiny' is nan"):
        score_images(split, model, tmp_path, options=ScoringOptions(**FLOAT32))
    assert not list(tmp_path.glob("*.parquet"))


def test_a_killed_scoring_goes_on_behind_its_last_whole_part_and_ends_the_same(tmp_path, monkeypatch):
    model, split = seeing_model(), split_of(EXAMPLES)
    options = ScoringOptions(part_samples=2, **FLOAT32)
    score_images(split, model, tmp_path / "whole", options=options)
    real, calls = scoring.answer_losses, []

    def killed(*arguments, **rest):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **rest)

    monkeypatch.setattr(scoring, "answer_losses", killed)
    with pytest.raises(KeyboardInterrupt):
        score_images(split, model, tmp_path / "s", options=options)
    summary = score_images(split, model, tmp_path / "s", options=options)
    assert (summary.parts_found, summary.parts_made, summary.num_scored) == (2, 2, 7)
    assert scored(tmp_path / "s") == scored(tmp_path / "whole")


def test_parts_of_another_model_other_options_or_other_pictures_are_not_gone_on_with(tmp_path):
    options = ScoringOptions(**FLOAT32)
    plain = {"split": split_of(EXAMPLES), "options": options}
    score_images(model=seeing_model(), folder=tmp_path, **plain)
    for changed in (
        {"split": split_of(various("f", 7))},
        {"split": split_of([*EXAMPLES[:6], example("e6", question="dd")])},
        {"sha256": "1"},
        {"options": ScoringOptions(without_prompt=True, **FLOAT32)},
    ):
        with pytest.raises(LabError, match="was scored by another model, with other options or of other samples"):
            score_images(model=seeing_model(), folder=tmp_path, **{**plain, **changed})
