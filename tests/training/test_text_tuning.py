from dataclasses import replace

import numpy as np
import pytest

from lab.data.filters.filtering import Filtered
from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM
from lab.data.instructions.instructions import split_of_group
from lab.errors import LabError
from lab.training import tuning
from lab.training.cell import INSTRUCTIONS, cell_batches, cell_stages
from lab.training.loop import TrainingOptions
from lab.training.stage_training import train_stages
from lab.training.tuning import ORACLE, filter_cell, text_tuning
from tests.parts.tiny_models import language_model
from tests.training.instructions import ALPHABET, numbered, offline_models, tiny_model, tiny_parameters

__all__ = ["offline_models"]

pytestmark = pytest.mark.usefixtures("offline_models")


def test_held_out_instructions_are_clean_and_of_no_training_group():
    data = text_tuning(tiny_parameters(measure_dev=True))
    held_out = [one for split in data.held_out.values() for one in split.samples]
    assert (len(data.train), {name: len(split) for name, split in data.held_out.items()}) == (
        40,
        {"test": 6, "dev": 6},
    )
    assert sum(fault is not None for fault in data.faults) == 12
    assert not {one.group for one in data.train.samples} & {one.group for one in held_out}
    assert {split_of_group(one.group) for one in data.held_out["test"].samples} == {"test"}
    for one in held_out:
        # As the conversations were written.
        assert one.answer.split()[-1] == one.question.split()[0]
        assert one.answer in one.choices
    assert data.facts["licences"] == {"chatterbot": "BSD-3-Clause"}
    assert set(text_tuning(tiny_parameters()).held_out) == {"test"}


def test_losses_are_made_once(monkeypatch):
    first = text_tuning(tiny_parameters())
    monkeypatch.setattr(tuning, "score", lambda *a, **o: pytest.fail("scored again"))
    again = text_tuning(tiny_parameters())
    assert again.train.samples == first.train.samples
    assert again.losses.losses.tolist() == first.losses.losses.tolist()


def test_every_filter_of_a_cell_judges_every_training_instruction():
    data = text_tuning(tiny_parameters())
    for name in (*LOSS_FILTERS, RANDOM, ORACLE):
        kept = filter_cell(tiny_parameters(loss_filter=name), data)
        assert len(kept.keep) == 40
        assert kept.num_dropped == int((~kept.keep).sum())
    assert filter_cell(tiny_parameters(), data).keep.all()
    by_source = filter_cell(tiny_parameters(loss_filter="gaussian", fitted_by="source"), data)
    # There is one source alone.
    assert by_source.keep.tolist() == filter_cell(tiny_parameters(loss_filter="gaussian"), data).keep.tolist()
    oracle = filter_cell(tiny_parameters(loss_filter=ORACLE), data).keep
    assert oracle.tolist() == [fault is None for fault in data.faults]
    with pytest.raises(LabError, match=r"unknown loss filter 'gaussian_mid'.*oracle"):
        filter_cell(tiny_parameters(loss_filter="gaussian_mid"), data)
    with pytest.raises(LabError, match="unknown fitted_by 'group'; choose one of: corpus, source"):
        filter_cell(tiny_parameters(loss_filter="gaussian", fitted_by="group"), data)
    with pytest.raises(LabError, match="loss filter 'random' is fitted to nothing, so not by 'source'"):
        filter_cell(tiny_parameters(loss_filter=RANDOM, fitted_by="source"), data)


def test_a_cell_trains_in_packs_and_repeats_exactly(tmp_path):
    parameters = tiny_parameters(steps=3, learning_rate=1e-2)
    runs = []
    for _ in range(2):
        data = text_tuning(parameters)
        before = [weight.detach().clone() for weight in data.model.parameters()]
        record = train_stages(
            data.model,
            cell_stages(parameters),
            {INSTRUCTIONS: data.kept(filter_cell(parameters, data))},
            TrainingOptions(),
            batches=replace(cell_batches(parameters), tokens=100),
            seed=0,
            checkpoint=tmp_path / "c.safetensors",
        )
        assert record.certificates[0]["packing_certificate"] == "passed"
        assert any((a != b).any() for a, b in zip(before, data.model.parameters(), strict=True))
        runs.append(record.losses)
    assert runs[0] == runs[1]
    assert len(runs[0]) == 3
    assert 0 < record.costs()["lm_tokens"] <= 3 * (100 + 40)


def test_a_filter_that_keeps_nothing_and_a_sample_that_fits_no_pack_are_refused():
    parameters = tiny_parameters()
    data = text_tuning(parameters)
    none = Filtered(data.train.ids, ["no"] * 40, name="all")

    def trained(kept, **batch):
        given = {"batches": replace(cell_batches(parameters), **batch), "seed": 0}
        train_stages(data.model, cell_stages(parameters), {INSTRUCTIONS: data.kept(kept)}, TrainingOptions(), **given)

    with pytest.raises(LabError, match="stage 'fine_tuning' has no example of 'instructions' to train on"):
        trained(none)
    with pytest.raises(LabError, match=r"sample '.*' has \d+ tokens, more than the budget of 1"):
        trained(filter_cell(parameters, data), tokens=1)


def test_too_few_instructions_are_counted():
    with pytest.raises(LabError, match=r"there are \d+ training instructions that can be read, fewer than 4000"):
        text_tuning(tiny_parameters(num_training=4000))


def test_no_source_drowns_the_others():
    many = [one for one in numbered(40) if one.source == "s0" or int(one.id[1:]) < 8]
    chosen = tuning._chosen(many, 8, "training")
    counts = np.unique([one.source for one in chosen], return_counts=True)[1]
    assert counts.tolist() == [4, 4]


def test_a_scorer_that_cannot_read_everything_is_refused_whenever_the_data_is_opened(monkeypatch):
    without_u = language_model(alphabet=ALPHABET.replace("u", ""))
    models = {"few letters": without_u}
    monkeypatch.setattr(tuning, "open_language_model", lambda name, **options: models.get(name) or tiny_model())
    for _ in range(2):
        with pytest.raises(LabError, match=r"scorer 'tiny qwen3' has no loss of \d+ of 40 training samples \(not"):
            text_tuning(tiny_parameters(scorer="few letters"))


def test_losses_of_a_model_pretrained_for_longer_are_others():
    first, longer = (text_tuning(tiny_parameters(scorer="character", pretraining_steps=steps)) for steps in (60, 61))
    assert first.train.samples == longer.train.samples
    assert first.folders != longer.folders
