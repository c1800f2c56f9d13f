import json
from dataclasses import replace
from itertools import pairwise

import pytest

from lab.errors import LabError
from lab.training.stage_training import Ancestry, as_json, declaration, from_json, with_stage
from tests.training.staged import Staged, run, stage, three_stages


@pytest.fixture(scope="module")
def chain() -> Ancestry:
    """Of three stages, each from the last."""
    return run(Staged(), *three_stages().values()).ancestry


def test_each_of_three_stages_knows_all_that_went_before(chain):
    assert [link.stage for link in chain] == ["one", "two", "three"]
    assert [link.parents for link in chain] == [(), (chain[0].sha256,), (chain[1].sha256,)]
    assert [link.trained for link in chain] == [
        ("visual_projector",),
        ("vision_encoder", "visual_projector"),
        ("vision_encoder", "visual_projector", "language_model"),
    ]
    # A frozen part is the same in both links, a trained one is not.
    changed = [[part for part in a.weights if a.weights[part] != b.weights[part]] for a, b in pairwise(chain)]
    assert changed == [["vision_encoder", "visual_projector"], list(chain[0].weights)]
    assert chain[0].declaration["learning_rates"] == {"visual_projector": 0.01}


def test_a_chain_comes_back_from_json_and_one_that_was_changed_afterwards_is_refused(chain):
    entries = json.loads(json.dumps(as_json(chain)))
    assert from_json(entries, "here") == chain
    with pytest.raises(LabError, match="the ancestry in here does not fit itself at stage 'two'"):
        from_json(entries[1:], "here")
    entries[0]["declaration"]["steps"] = 7
    with pytest.raises(LabError, match="the ancestry in here does not fit itself at stage 'one'"):
        from_json(entries, "here")


def test_a_stage_after_several_has_the_parts_of_all(chain):
    right = stage("right", frozen=(), learning_rates={"language_model": 0.01})
    joined = stage("joined", starts_from=("two", "right"))
    end = with_stage(with_stage(chain[:2], right, Staged().parts()), joined, Staged().parts())[-1]
    assert end.trained == ("vision_encoder", "visual_projector", "language_model")
    assert len(end.parents) == 2


def test_a_changed_description_makes_no_other_stage():
    assert declaration(stage()) == declaration(replace(stage(), paper="in other words"))
    assert declaration(stage()) != declaration(replace(stage(), steps=7))


def test_a_stage_without_copies_is_declared_as_before_there_were_any():
    assert "starts_as" not in declaration(stage())
    assert declaration(stage(starts_as={"visual_projector": "language_model"}))["starts_as"]
