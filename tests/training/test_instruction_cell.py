import numpy as np
import pytest

from lab.data.filters.filtering import Filtered
from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM
from lab.data.instructions.instructions import split_of_group
from lab.errors import LabError
from lab.parts.omni_model import OmniModel
from lab.training import instruction_data
from lab.training.batches import BatchOptions
from lab.training.curricula import INSTRUCTIONS, instruction_stage
from lab.training.instruction_data import open_instruction_data, open_reader, open_scorer
from lab.training.instruction_filter import ORACLE, filter_cell, kept_examples
from lab.training.language_models import text_writer
from lab.training.loop import TrainingOptions
from lab.training.stage_training import train_stages
from tests.parts.tiny_models import language_model
from tests.training.instructions import ALPHABET, offline_models, tiny_model, tiny_parameters

__all__ = ["offline_models"]

pytestmark = pytest.mark.usefixtures("offline_models")


def opened(parameters):
    return open_instruction_data(parameters, open_reader(parameters), lambda: open_scorer(parameters))


def test_held_out_instructions_are_clean_and_of_no_training_group():
    data = opened(tiny_parameters())
    assert (len(data.train), len(data.dev), len(data.test)) == (40, 6, 6)
    assert sum(fault is not None for fault in data.faults) == 12
    assert not {one.group for one in data.train} & {one.group for one in (*data.dev, *data.test)}
    assert {split_of_group(one.group) for one in data.test} == {"test"}
    for one in (*data.dev, *data.test):
        # As the conversations were written.
        assert one.answer.split()[-1] == one.question.split()[0]
    assert data.facts["licences"] == {"chatterbot": "BSD-3-Clause"}


def test_data_and_losses_are_made_once(monkeypatch):
    first = opened(tiny_parameters())
    monkeypatch.setattr(instruction_data, "read_instructions", lambda name: pytest.fail("read again"))
    again = open_instruction_data(tiny_parameters(), tiny_model(), lambda: pytest.fail("scored again"))
    assert again.train == first.train
    assert again.losses.losses.tolist() == first.losses.losses.tolist()


def test_every_filter_of_a_cell_judges_every_training_instruction():
    data = opened(tiny_parameters())
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
    parameters = tiny_parameters()
    data = opened(parameters)
    runs = []
    for _ in range(2):
        reader = tiny_model()
        before = [weight.detach().clone() for weight in reader.model.parameters()]
        model = OmniModel(language_model=reader, positions="sequential")
        write = text_writer(reader.name)
        examples = kept_examples(data, filter_cell(parameters, data), model, write=write, max_tokens=100)
        record = train_stages(
            model,
            [instruction_stage(steps=3, learning_rate=1e-2)],
            {INSTRUCTIONS: examples},
            TrainingOptions(),
            batches=BatchOptions(tokens=100, packed=True),
            seed=0,
            checkpoint=tmp_path / "c.safetensors",
        )
        assert record.certificates[0]["packing_certificate"] == "passed"
        assert any((a != b).any() for a, b in zip(before, reader.model.parameters(), strict=True))
        runs.append(record.losses)
    assert runs[0] == runs[1]
    assert len(runs[0]) == 3
    assert 0 < record.costs()["lm_tokens"] <= 3 * (100 + 40)


def test_a_filter_that_keeps_nothing_is_refused():
    data = opened(tiny_parameters())
    none = Filtered([one.id for one in data.train], ["no"] * 40, name="all", parameters={})
    with pytest.raises(LabError, match="loss filter 'all' keeps none of 40 instructions"):
        kept_examples(data, none, OmniModel(language_model=tiny_model()), write=str.strip, max_tokens=100)


def test_an_instruction_that_cannot_be_trained_on_is_named():
    data = opened(tiny_parameters())
    everything = filter_cell(tiny_parameters(), data)
    with pytest.raises(LabError, match=f"training instruction '{data.train[0].id}' cannot be trained on: longer than"):
        kept_examples(data, everything, OmniModel(language_model=tiny_model()), write=str.strip, max_tokens=1)


def test_too_few_instructions_are_counted():
    with pytest.raises(LabError, match=r"there are \d+ training instructions that can be read, fewer than 4000"):
        opened(tiny_parameters(num_training=4000))


def test_no_source_drowns_the_others():
    from tests.training.instructions import numbered

    many = [one for one in numbered(40) if one.source == "s0" or int(one.id[1:]) < 8]
    chosen = instruction_data._chosen(many, 8, "training")
    counts = np.unique([one.source for one in chosen], return_counts=True)[1]
    assert counts.tolist() == [4, 4]


def test_a_scorer_that_cannot_read_everything_is_refused_whenever_the_data_is_opened():
    reader, without_u = tiny_model(), language_model(alphabet=ALPHABET.replace("u", ""))
    for _ in range(2):
        with pytest.raises(LabError, match=r"scorer 'tiny qwen3' has no loss of \d+ of 40 training instructions \(not"):
            open_instruction_data(tiny_parameters(scorer="few letters"), reader, lambda: without_u)


def test_losses_of_a_model_pretrained_for_longer_are_others():
    first, longer = (opened(tiny_parameters(pretraining_steps=steps)) for steps in (60, 61))
    assert first.folder == longer.folder
    assert first.scores != longer.scores
