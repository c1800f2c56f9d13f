import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.data.filters.filtering import Filtered
from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM
from lab.errors import LabError
from lab.training import image_text_model, scoring
from lab.training.batches import BatchOptions
from lab.training.curricula import FINE_TUNING, IMAGE, PRETRAINING, image_text_stages
from lab.training.image_text_data import check_image_text
from lab.training.image_text_model import FACTS, image_text_splits, open_pretrained
from lab.training.instruction_filter import ORACLE, filter_cell
from lab.training.language_models import open_language_model
from lab.training.loop import TrainingOptions
from lab.training.stage_training import StagesRecord, train_stages
from lab.training.vision import open_vision_encoder
from tests.image_text import all_losses, opened, tiny_image_text
from tests.training.staged import equal, state
from tests.vision import draw_stand_ins


@pytest.fixture
def cell(tmp_path, monkeypatch):
    draw_stand_ins(tmp_path / "things", monkeypatch)
    return tiny_image_text(tmp_path)


def fine_tuned(cell, pretrained, examples, **options) -> StagesRecord:
    batches = BatchOptions(tokens=cell.budget_tokens, packed=True)
    given = {"batches": batches, "seed": 0, "ancestry": pretrained.ancestry, **options}
    return train_stages(pretrained.model, image_text_stages(cell)[1:], {IMAGE: examples}, TrainingOptions(), **given)


def test_what_is_fine_tuned_on_was_not_pretrained_on_and_neither_is_tested_on(cell):
    splits = image_text_splits(cell, open_vision_encoder(cell.vision_encoder))
    pretrained, data = opened(cell)
    before = splits[IMAGE].samples[:16]
    # The third kind's groups are of three: its second begins with the fourth of its stills, the last before the cut.
    assert pretrained.facts["left_out"] == {"of a group that was pretrained on": 2}
    assert pretrained.facts["pretrained_on"] == 16
    assert len(data.train) == 22
    assert not {one.group for one in data.train} & {one.group for one in before}
    assert {one.id for one in data.train} < {one.id for one in splits[IMAGE].samples[16:]}
    assert not {one.id for one in splits["test"].samples} & {one.id for one in splits[IMAGE].samples}
    assert all(one.answer in one.choices for one in splits["test"].samples)


def test_faults_are_planted_in_question_and_answer_and_the_picture_stays(cell):
    pretrained, data = opened(cell)
    assert [fault for fault in data.faults if fault].count("swapped") == 2
    assert sum(fault is not None for fault in data.faults) == round(0.3 * 22)
    pairs = zip(pretrained.instructions.samples, data.split.samples, data.train, data.faults, strict=True)
    for clean, made, trained, fault in pairs:
        assert made == trained
        assert (made.id, made.group, made.content[:-1]) == (clean.id, clean.group, clean.content[:-1])
        assert (made == clean) == (fault is None)
        if fault == "swapped":
            assert (made.question, made.answer) == (clean.answer, clean.question)
    assert data.split.store is pretrained.instructions.store


def test_the_pretrained_model_and_its_losses_are_made_once_and_the_same_again(cell, monkeypatch):
    first, data = opened(cell)
    weights, losses = state(first.model), all_losses(data)
    assert len(losses) == 22
    for module, name in ((image_text_model, "train_stages"), (scoring, "score")):
        monkeypatch.setattr(module, name, lambda *a, **o: pytest.fail("made again"))
    again, data = opened(cell)
    assert equal(state(again.model), weights)
    assert all_losses(data) == losses
    assert again.scorer == first.scorer
    assert not list(first.folder.parent.glob("*.checkpoint"))


def test_another_pretraining_is_another_model_and_another_fault_seed_only_other_losses(cell, monkeypatch):
    first, data = opened(cell)
    longer, _ = opened(replace(cell, scorer_steps=4))
    assert longer.folder != first.folder
    monkeypatch.setattr(image_text_model, "train_stages", lambda *a, **o: pytest.fail("trained again"))
    same, other = opened(replace(cell, fault_seed=1, warmup_steps=0, steps=9, loss_filter="gaussian"))
    assert same.folder == first.folder
    assert other.scores != data.scores


def test_every_filter_judges_every_example_and_its_split_is_what_it_keeps(cell):
    _, data = opened(cell)
    for name in (*LOSS_FILTERS, RANDOM, ORACLE):
        kept = filter_cell(replace(cell, loss_filter=name), data)
        assert len(kept.keep) == 22
        left = [one.id for one, stays in zip(data.train, kept.keep, strict=True) if stays]
        assert [one.id for one in data.kept(kept).samples] == left
    oracle = filter_cell(replace(cell, loss_filter=ORACLE), data)
    assert oracle.keep.tolist() == [fault is None for fault in data.faults]
    by_kind = filter_cell(replace(cell, loss_filter="gaussian", fitted_by="source"), data)
    losses = np.array(all_losses(data))
    for kind in ("what", "where", "number", "larger"):
        own = np.array([one.source == kind for one in data.train])
        expected = np.abs(losses[own] - losses[own].mean()) <= losses[own].std()
        assert by_kind.keep[own].tolist() == expected.tolist()


def test_a_cell_goes_on_from_the_pretrained_weights_in_packs_and_repeats_exactly(cell, tmp_path):
    runs = []
    for _ in range(2):
        pretrained, data = opened(cell)
        before = state(pretrained.model)
        everything = data.kept(filter_cell(cell, data))
        record = fine_tuned(cell, pretrained, everything, checkpoint=tmp_path / "c.safetensors")
        assert record.certificates[0]["packing_certificate"] == "passed"
        after = state(pretrained.model)
        changed = {name.partition(".")[0] for name in after if not torch.equal(before[name], after[name])}
        assert changed == {"visual_projector", "language_model"}
        runs.append(record.losses)
    assert runs[0] == runs[1]
    assert 0 < record.costs()["lm_tokens"] <= 3 * (cell.budget_tokens + 22)
    assert record.costs()["decoded_frames"] > 0
    assert [link.stage for link in pretrained.ancestry] == [PRETRAINING]
    assert [link.stage for link in record.ancestry] == [PRETRAINING, FINE_TUNING]


def test_stages_say_what_trains_and_from_what(cell):
    first, _ = image_text_stages(cell)
    _, second = image_text_stages(replace(cell, train_language_model=False))
    assert (first.starts_from, second.starts_from) == ((), (PRETRAINING,))
    assert (first.steps, second.steps, second.name) == (3, 3, FINE_TUNING)
    assert set(first.trained) == {"visual_projector", "language_model"}
    assert second.trained == ("visual_projector",)


def test_a_filter_that_keeps_nothing_is_refused(cell):
    pretrained, data = opened(cell)
    none = Filtered([one.id for one in data.train], ["no"] * 22, name="all", parameters={})
    with pytest.raises(LabError, match="stage 'image_text_fine_tuning' has no example of 'image_text' to train on"):
        fine_tuned(cell, pretrained, data.kept(none))


def test_a_killed_pretraining_goes_on_where_it_was(cell, monkeypatch):
    expected = all_losses(opened(replace(cell, scorer_seed=1))[1])
    real, killed = image_text_model.train_stages, []

    def until(*arguments, **options):
        def on_step(step, loss):
            if step == 2 and not killed:
                killed.append(step)
                raise KeyboardInterrupt

        return real(*arguments, **{**options, "on_step": on_step})

    monkeypatch.setattr(image_text_model, "MODEL_VERSION", 2)
    monkeypatch.setattr(image_text_model, "train_stages", until)
    with pytest.raises(KeyboardInterrupt):
        opened(replace(cell, scorer_seed=1))
    assert all_losses(opened(replace(cell, scorer_seed=1))[1]) == expected
    assert killed == [2]


def test_too_few_readable_examples_are_counted_by_reason(cell):
    with pytest.raises(LabError, match=r"0 of 16 examples of 'stills' can be read for pretraining, fewer than 1; left"):
        opened(replace(cell, max_tokens=9))
    encoder = open_vision_encoder(cell.vision_encoder)
    images = image_text_splits(cell, encoder)[IMAGE]
    llm = open_language_model(cell.language_model, pretraining_steps=1)
    with pytest.raises(LabError, match="1 of 1 examples of 'stills' can be read for fine-tuning, fewer than 2"):
        open_pretrained(cell, replace(images, samples=images.samples[:17]), encoder, llm)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_pretraining": 0}, "num_pretraining and num_training are 0 and 24; expected at least 1 and 2"),
        ({"num_training": 1}, "num_pretraining and num_training are 16 and 1"),
        ({"fault_share": 1.0}, "fault_share is 1.0; expected 0 to below 1"),
        ({"max_tokens": 201}, "max_tokens is 201 and budget_tokens 400; a pack has to hold a faulty example too"),
    ],
)
def test_numbers_that_no_study_has_are_refused(cell, changes, message):
    with pytest.raises(LabError, match=message):
        check_image_text(replace(cell, **changes))


def test_the_facts_tell_what_the_model_was_trained_on(cell):
    pretrained, _ = opened(cell)
    facts = json.loads((pretrained.folder / FACTS).read_text())
    assert facts["source"] == "stills"
    assert facts["parameters"]["scorer_steps"] == 3
    assert facts["pretraining_lm_tokens"] > 0
