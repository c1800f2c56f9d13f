import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.data.filters.filtering import Filtered
from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM
from lab.errors import LabError
from lab.training import tuning
from lab.training.cell import FINE_TUNING, IMAGE, PRETRAINING, cell_batches, cell_stages, seen_data
from lab.training.loop import TrainingOptions
from lab.training.named_parts import open_vision_encoder
from lab.training.stage_training import StagesRecord, train_stages
from lab.training.tuning import FACTS, ORACLE, as_vision, check_tuning, filter_cell, open_pretrained, picture_tuning
from tests.image_text import tiny_image_text
from tests.training.staged import equal, state
from tests.vision import draw_stand_ins


@pytest.fixture
def cell(tmp_path, monkeypatch):
    draw_stand_ins(tmp_path / "things", monkeypatch)
    return tiny_image_text(tmp_path)


def fine_tuned(cell, data, examples, **options) -> StagesRecord:
    given = {"batches": cell_batches(cell), "seed": 0, "ancestry": data.ancestry, **options}
    return train_stages(data.model, cell_stages(cell)[1:], {IMAGE: examples}, TrainingOptions(), **given)


def test_what_is_fine_tuned_on_was_not_pretrained_on_and_neither_is_tested_on(cell):
    images = seen_data(as_vision(cell), open_vision_encoder(cell.vision_encoder))[IMAGE]
    data = picture_tuning(cell)
    before, test = images.samples[:16], data.held_out["test"]
    # The third kind's groups are of three: its second begins with the fourth of its stills, the last before the cut.
    assert data.facts["left_out"] == {"of a group that was pretrained on": 2}
    assert data.facts["pretrained_on"] == 16
    assert len(data.train) == 22
    assert not {one.group for one in data.train.samples} & {one.group for one in before}
    assert set(data.train.ids) < {one.id for one in images.samples[16:]}
    assert not set(test.ids) & set(images.ids)
    assert all(one.answer in one.choices for one in test.samples)


def test_faults_are_planted_in_question_and_answer_and_the_picture_stays(cell):
    clean, data = open_pretrained(cell).train, picture_tuning(cell)
    assert [fault for fault in data.faults if fault].count("swapped") == 2
    assert sum(fault is not None for fault in data.faults) == round(0.3 * 22)
    for before, made, fault in zip(clean.samples, data.train.samples, data.faults, strict=True):
        assert (made.id, made.group, made.content[:-1]) == (before.id, before.group, before.content[:-1])
        assert (made == before) == (fault is None)
        if fault == "swapped":
            assert (made.question, made.answer) == (before.answer, before.question)
    assert data.train.store.folder == clean.store.folder


def test_the_pretrained_model_and_its_losses_are_made_once_and_the_same_again(cell, monkeypatch):
    first = picture_tuning(cell)
    weights = state(first.model)
    assert len(first.losses.losses) == 22
    for module, name in ((tuning, "train_stages"), (tuning, "score")):
        monkeypatch.setattr(module, name, lambda *a, **o: pytest.fail("made again"))
    again = picture_tuning(cell)
    assert equal(state(again.model), weights)
    assert again.losses.losses.tolist() == first.losses.losses.tolist()
    assert again.scorer_sha256 == first.scorer_sha256
    assert not list(first.folders[0].parent.glob("*.checkpoint"))


def test_another_pretraining_is_another_model_and_another_fault_seed_only_other_losses(cell, monkeypatch):
    first = picture_tuning(cell)
    longer = picture_tuning(replace(cell, scorer_steps=4))
    assert longer.folders[0] != first.folders[0]
    monkeypatch.setattr(tuning, "train_stages", lambda *a, **o: pytest.fail("trained again"))
    other = picture_tuning(replace(cell, fault_seed=1, warmup_steps=0, steps=9, loss_filter="gaussian"))
    assert other.folders[:-1] == first.folders[:-1]
    assert other.folders[-1] != first.folders[-1]


def test_every_filter_judges_every_example_and_its_split_is_what_it_keeps(cell):
    data = picture_tuning(cell)
    for name in (*LOSS_FILTERS, RANDOM, ORACLE):
        kept = filter_cell(replace(cell, loss_filter=name), data)
        assert len(kept.keep) == 22
        left = [one.id for one, stays in zip(data.train.samples, kept.keep, strict=True) if stays]
        assert [one.id for one in data.kept(kept).samples] == left
    oracle = filter_cell(replace(cell, loss_filter=ORACLE), data)
    assert oracle.keep.tolist() == [fault is None for fault in data.faults]
    by_kind = filter_cell(replace(cell, loss_filter="gaussian", fitted_by="source"), data)
    losses = data.losses.losses
    for kind in ("what", "where", "number", "larger"):
        own = np.array([one.source == kind for one in data.train.samples])
        expected = np.abs(losses[own] - losses[own].mean()) <= losses[own].std()
        assert by_kind.keep[own].tolist() == expected.tolist()


def test_a_cell_goes_on_from_the_pretrained_weights_in_packs_and_repeats_exactly(cell, tmp_path):
    runs = []
    for _ in range(2):
        data = picture_tuning(cell)
        before = state(data.model)
        everything = data.kept(filter_cell(cell, data))
        record = fine_tuned(cell, data, everything, checkpoint=tmp_path / "c.safetensors")
        assert record.certificates[0]["packing_certificate"] == "passed"
        after = state(data.model)
        changed = {name.partition(".")[0] for name in after if not torch.equal(before[name], after[name])}
        assert changed == {"visual_projector", "language_model"}
        runs.append(record.losses)
    assert runs[0] == runs[1]
    assert 0 < record.costs()["lm_tokens"] <= 3 * (cell.budget_tokens + 22)
    assert record.costs()["decoded_frames"] > 0
    assert [link.stage for link in data.ancestry] == [PRETRAINING]
    assert [link.stage for link in record.ancestry] == [PRETRAINING, FINE_TUNING]


def test_stages_say_what_trains_and_from_what(cell):
    first, _ = cell_stages(cell)
    _, second = cell_stages(replace(cell, train_language_model=False))
    assert (first.starts_from, second.starts_from) == ((), (PRETRAINING,))
    assert (first.steps, second.steps, second.name) == (3, 3, FINE_TUNING)
    assert set(first.trained) == {"visual_projector", "language_model"}
    assert second.trained == ("visual_projector",)


def test_a_filter_that_keeps_nothing_is_refused(cell):
    data = picture_tuning(cell)
    none = Filtered(data.train.ids, ["no"] * 22, name="all")
    with pytest.raises(LabError, match="stage 'image_text_fine_tuning' has no example of 'image_text' to train on"):
        fine_tuned(cell, data, data.kept(none))


def test_a_killed_pretraining_goes_on_where_it_was(cell, monkeypatch):
    expected = picture_tuning(replace(cell, scorer_seed=1)).losses.losses.tolist()
    real, killed = tuning.train_stages, []

    def until(*arguments, **options):
        def on_step(step, loss):
            if step == 2 and not killed:
                killed.append(step)
                raise KeyboardInterrupt

        return real(*arguments, **{**options, "on_step": on_step})

    monkeypatch.setattr(tuning, "MODEL_VERSION", 2)
    monkeypatch.setattr(tuning, "train_stages", until)
    with pytest.raises(KeyboardInterrupt):
        picture_tuning(replace(cell, scorer_seed=1))
    assert picture_tuning(replace(cell, scorer_seed=1)).losses.losses.tolist() == expected
    assert killed == [2]


def test_too_few_readable_examples_are_counted_by_reason(cell):
    with pytest.raises(LabError, match=r"0 of 16 examples of 'stills' can be read for pretraining, fewer than 1; left"):
        picture_tuning(replace(cell, max_tokens=9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_pretraining": 0}, "num_pretraining is 0; expected at least 1"),
        ({"num_training": 1}, "num_training is 1; expected at least 2"),
        ({"fault_share": 1.0}, "fault_share is 1.0; expected 0 to below 1"),
        ({"max_tokens": 201}, "max_tokens is 201 and budget_tokens 400; a pack has to hold a faulty sample too"),
    ],
)
def test_numbers_that_no_study_has_are_refused(cell, changes, message):
    with pytest.raises(LabError, match=message):
        check_tuning(replace(cell, **changes))


def test_the_facts_tell_what_the_model_was_trained_on(cell):
    facts = json.loads((open_pretrained(cell).folders[0] / FACTS).read_text())
    assert facts["source"] == "stills"
    assert facts["parameters"]["scorer_steps"] == 3
    assert facts["pretraining_lm_tokens"] > 0
