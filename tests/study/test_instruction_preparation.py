import shutil

import pytest

from lab import paths
from lab.errors import LabError
from lab.study import instruction_preparation, preparation
from lab.study.ablation import load_ablation
from lab.study.instruction_preparation import CHECKED_PARAMETERS, PREPARED_PARAMETERS, prepare_instructions
from tests.training.instructions import offline_models, tiny_parameters

__all__ = ["offline_models"]


@pytest.fixture
def made(monkeypatch, offline_models):
    """How often something was made; no language model is pretrained."""
    calls = []
    real = instruction_preparation._scored
    monkeypatch.setattr(instruction_preparation, "_scored", lambda cells: calls.append(len(cells)) or real(cells))

    def without_models(wanted, make):
        ingredients, folders = make()
        return ingredients | {"language_model": {cell["language_model"]: "0" for cell in wanted}}, folders

    monkeypatch.setattr(preparation, "_with_language_models", without_models)
    return calls


def test_cells_that_differ_in_the_filter_share_one_preparation_which_is_remembered(made):
    cells = [tiny_parameters(), tiny_parameters(loss_filter="gaussian"), tiny_parameters(seed=1)]
    first = prepare_instructions(cells)
    assert made == [1]
    assert first["scorer"] == {"character": "0"}
    assert set(first["instructions"]) == set(first["test_instructions"]) == {"chatterbot"}
    assert prepare_instructions(cells) == first
    assert made == [1]
    shutil.rmtree(paths.cache_dir() / "instructions")
    assert prepare_instructions(cells) == first
    assert made == [1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_filter": "gausian"}, "unknown loss filter 'gausian'"),
        ({"k": -1.0}, r"k and num_choices are -1.0 and 4; expected at least 0 and 2"),
        ({"num_choices": 1}, "k and num_choices are 1.0 and 1"),
        ({"max_tokens": 500}, "max_tokens is 500 and budget_tokens 400; a sample has to fit a pack"),
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"scorer": "smolm"}, "unknown language model 'smolm'"),
        ({"instructions": "chaterbot"}, "unknown source of instructions 'chaterbot'"),
    ],
)
def test_what_cannot_be_is_refused_by_one_sentence(made, changes, message):
    with pytest.raises(LabError, match=message):
        prepare_instructions([tiny_parameters(**changes)])


def test_what_is_prepared_and_checked_are_parameters_of_the_study():
    assert {*PREPARED_PARAMETERS, *CHECKED_PARAMETERS} <= load_ablation("loss_filter").base.keys()
