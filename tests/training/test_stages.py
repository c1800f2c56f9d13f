import copy
import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from lab.errors import LabError
from lab.training.stages import PAPER_STAGES, PARTS, SCHEDULES, apply_stage
from tests.training.staged import Staged, equal, stage, state, three_stages


def test_the_papers_table():
    # Section 3 as the paper's table prints it: what trains at which rate, None where it is not found.
    assert {name: dict(entry.learning_rates) for name, entry in PAPER_STAGES.items()} == {
        "image_1": {"visual_projector": 1e-3},
        "image_2": {"visual_projector": 1e-5, "vision_encoder": 1e-5},
        "image_3": {"visual_projector": 1e-5, "vision_encoder": 1e-5, "language_model": 1e-5},
        "video": {"video_projector": 4e-6},
        "audio": {"audio_encoder": None, "audio_projector": None},
        "omni_alignment": dict.fromkeys(PARTS),
        "sft": dict.fromkeys(PARTS),
    }
    assert PAPER_STAGES["image_1"].frozen == PAPER_STAGES["video"].frozen == ("vision_encoder", "language_model")
    assert PAPER_STAGES["image_2"].frozen == PAPER_STAGES["audio"].frozen == ("language_model",)
    assert {name for name, entry in PAPER_STAGES.items() if entry.schedule} == {"audio"}
    assert PAPER_STAGES["omni_alignment"].starts_from == ("image_3", "video", "audio")
    assert PAPER_STAGES["sft"].starts_from == ("omni_alignment",)


def test_nothing_that_the_paper_does_not_say_is_filled_in():
    for entry in PAPER_STAGES.values():
        assert entry.steps is entry.tokens is None
        assert set(entry.data.values()) == {None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"learning_rates": {"projector": 1.0}},
            "unknown part in stage 'one': 'projector'.*; choose one of: audio_encoder",
        ),
        ({"frozen": ("llm",)}, "unknown part in stage 'one': 'llm'"),
        ({"learning_rates": {}}, "stage 'one' trains nothing; choose at least one of: vision_encoder"),
        ({"frozen": ("visual_projector",)}, "stage 'one' both trains and freezes visual_projector"),
        ({"learning_rates": {"visual_projector": 0.0}}, "learning rate of visual_projector in stage 'one' is 0.0"),
        ({"learning_rates": {"visual_projector": math.nan}}, "is nan; expected a positive number"),
        ({"data": {"captions": 1.0, "vqa": 0.0}}, "mixing weight of vqa in stage 'one' is 0.0; expected a positive"),
        ({"data": {"captions": -1.0}}, "mixing weight of captions in stage 'one' is -1.0"),
        ({"steps": 0}, "number of steps in stage 'one' is 0"),
        ({"tokens": 100}, "stage 'one' is as long as its steps or as its tokens; give one"),
        ({"schedule": "linear"}, "unknown schedule in stage 'one': 'linear'; choose one of: constant, cosine"),
        ({"starts_from": ("one",)}, "stage 'one' starts from itself; name an earlier stage"),
    ],
)
def test_stage_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(LabError, match=message):
        stage(**changes)


def test_the_papers_stages_stand_behind_those_that_they_start_from():
    names = list(PAPER_STAGES)
    for place, entry in enumerate(PAPER_STAGES.values()):
        assert set(entry.starts_from or ()) <= set(names[:place])


def test_mixing_shares_sum_to_one():
    assert stage(data={"captions": 3.0, "vqa": 1.0}).mixing_shares == {"captions": 0.75, "vqa": 0.25}
    assert PAPER_STAGES["image_1"].mixing_shares == {"captions": 1.0}
    with pytest.raises(LabError, match=r"mixing weight of captions, interleaved, .* in stage 'image_2' is not found"):
        _ = PAPER_STAGES["image_2"].mixing_shares


def test_each_trained_part_is_a_group_at_its_own_rate():
    model = Staged()
    groups = apply_stage(model.parts(), three_stages()["two"])
    assert [(group["name"], group["lr"]) for group in groups] == [("visual_projector", 1e-2), ("vision_encoder", 1e-3)]
    for group in groups:
        assert [id(p) for p in group["params"]] == [id(p) for p in model.parts()[group["name"]].parameters()]


def steps(model: Staged, groups: list[dict], number: int = 3) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(groups, weight_decay=0.5)
    for step in range(number):
        model.train()
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=torch.Generator().manual_seed(step)) + 3).loss.sum().backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("name", ["one", "two"])
def test_not_a_bit_of_a_frozen_part_changes_and_every_trained_one_does(name):
    model, chosen = Staged(), three_stages()[name]
    before = {part: state(module) for part, module in model.parts().items()}
    optimizer = steps(model, apply_stage(model.parts(), chosen))
    for part, module in model.parts().items():
        assert equal(before[part], state(module)) is (part in chosen.frozen)
        if part in chosen.trained:
            # Every weight, and batch norm's statistics too.
            changed = [key for key, value in state(module).items() if not torch.equal(value, before[part][key])]
            assert changed == list(before[part])
    frozen = [parameter for part in chosen.frozen for parameter in model.parts()[part].parameters()]
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in frozen)
    assert not any(parameter in optimizer.state for parameter in frozen)
    assert len(optimizer.state) == sum(len(list(model.parts()[part].parameters())) for part in chosen.trained)


def test_a_frozen_part_stays_in_evaluation_mode_whoever_calls_train():
    model = Staged()
    apply_stage(model.parts(), stage())
    model.train()
    model.language_model.train()
    model.language_model[1].train()
    nn.Sequential(model.vision_encoder).train()
    assert not any(m.training for part in ("language_model", "vision_encoder") for m in model.parts()[part].modules())
    assert all(m.training for m in model.visual_projector.modules())
    model.eval()
    assert not model.visual_projector.training


def test_a_frozen_part_stays_so_when_copied_and_pickled():
    model = Staged()
    apply_stage(model.parts(), stage())
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        again.train()
        assert not again.language_model[1].training
        assert again.visual_projector[1].training
        assert "train" not in state(again)
    assert not model.language_model.training


def test_a_part_that_was_frozen_trains_in_a_later_stage():
    model = Staged()
    apply_stage(model.parts(), three_stages()["one"])
    before = state(model.language_model)
    steps(model, apply_stage(model.parts(), three_stages()["three"]))
    assert not any(torch.equal(value, before[name]) for name, value in state(model.language_model).items())


def test_what_a_part_never_trains_does_not_change():
    model = Staged()
    model.visual_projector.never_trained = ("0",)
    before = state(model.visual_projector)
    steps(model, apply_stage(model.parts(), stage()))
    assert torch.equal(before["0.weight"], model.visual_projector[0].weight)
    assert not torch.equal(before["3.weight"], model.visual_projector[3].weight)


@pytest.mark.parametrize(
    ("changes", "never_trained", "message"),
    [
        ({"learning_rates": {"visual_projector": None}}, (), "learning rate of visual_projector in stage 'one' is not"),
        (
            {"learning_rates": {"audio_encoder": 1.0}},
            (),
            "unknown part of the model, trained in stage 'one': 'audio_encoder'.*; choose one of: language_model",
        ),
        ({}, ("0", "1", "3"), "has nothing to train in stage 'one'"),
    ],
)
def test_stage_that_does_not_fit_the_model_is_refused_and_changes_nothing(changes, never_trained, message):
    model = Staged()
    model.visual_projector.never_trained = never_trained
    with pytest.raises(LabError, match=message):
        apply_stage(model.parts(), replace(stage(), **changes))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_parts_that_share_a_parameter_are_refused():
    model = Staged()
    model.language_model[0].weight = model.visual_projector[0].weight
    with pytest.raises(LabError, match="parts 'visual_projector' and 'language_model' share a parameter"):
        apply_stage(model.parts(), stage())


def test_schedules_by_hand():
    rates = [SCHEDULES["cosine"](step, 0.1, steps=8, warmup_steps=4) for step in range(8)]
    # Up in four equal steps, then a quarter of the cosine's way a step, from 0.1 towards 0.001.
    half, root = 0.099 / 2, math.sqrt(0.5)
    expected = [0.025, 0.05, 0.075, 0.1, 0.1, 0.001 + half * (1 + root), 0.001 + half, 0.001 + half * (1 - root)]
    assert rates == pytest.approx(expected)
    rates = [SCHEDULES["constant"](step, 0.1, steps=8, warmup_steps=4) for step in range(6)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_without_warm_up_starts_at_its_peak(name):
    assert SCHEDULES[name](0, 0.05, steps=1, warmup_steps=0) == 0.05
