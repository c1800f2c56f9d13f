import math
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lab.errors import LabError
from lab.parts.joined_sequences import AnswerLoss
from lab.training.ancestry import load_stage, save_stage
from lab.training.loop import TrainingOptions, TrainingRecord
from lab.training.stage_loop import stage_options, train_stage
from lab.training.stages import PAPER_STAGES, Stage
from tests.training.staged import Staged, equal, stage, state, three_stages


def options(chosen: Stage, **changes: object) -> TrainingOptions:
    return stage_options(chosen, **{"precision": "float32", "checkpoint_every": 2, **changes})


def run(model: Staged, chosen: Stage, **arguments: object) -> TrainingRecord:
    return train_stage(model, model.parts, chosen, model.loss_of_step, options(chosen), **arguments)


def test_only_the_stages_parts_change_and_the_loss_falls():
    model, chosen = Staged(), replace(three_stages()["two"], steps=100)
    chosen = replace(chosen, learning_rates={"visual_projector": 0.1, "vision_encoder": 0.1})
    before = {name: state(part) for name, part in model.parts.items()}
    record = run(model, chosen)
    assert [equal(before[name], state(part)) for name, part in model.parts.items()] == [False, False, True]
    assert sum(record.losses[-10:]) < 0.9 * sum(record.losses[:10])
    assert not model.training


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.01 + 0.99 * 0.5 * (1 - math.sqrt(0.75))), ("constant", 1)])
def test_each_part_follows_the_schedule_from_its_own_peak(monkeypatch, schedule, last):
    chosen = replace(three_stages()["two"], schedule=schedule, steps=8)
    seen: list[list[float]] = []

    class Watched(torch.optim.AdamW):
        def step(self, closure=None):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    model = Staged()
    record = train_stage(model, model.parts, chosen, model.loss_of_step, options(chosen, warmup_steps=2))
    assert seen[0] == pytest.approx([5e-3, 5e-4])
    assert seen[1] == seen[2] == pytest.approx([1e-2, 1e-3])
    # Five of the cosine's six parts are behind step 7.
    assert seen[7] == pytest.approx([1e-2 * last, 1e-3 * last])
    assert record.learning_rates == [rates[0] for rates in seen]


class Killed(BaseException):
    """What a test kills a run with."""


def killed(step: int):
    def on_step(done: int, loss: float) -> None:
        if done == step:
            raise Killed

    return on_step


@pytest.mark.parametrize("killed_at", [0, 2, 3, 5])
def test_a_stage_that_was_killed_ends_bit_equal_to_one_that_was_not(tmp_path, killed_at):
    chosen, checkpoint = three_stages()["three"], tmp_path / "runs" / "stage.safetensors"
    whole = Staged()
    torch.manual_seed(1)
    record = run(whole, chosen)
    first = Staged()
    torch.manual_seed(1)
    with pytest.raises(Killed):
        run(first, chosen, checkpoint=checkpoint, on_step=killed(killed_at))
    resumed = Staged()
    torch.manual_seed(1 if killed_at < 2 else 99)
    again = run(resumed, chosen, checkpoint=checkpoint)
    # Batch norm's statistics too, which are no parameters.
    assert equal(state(whole), state(resumed))
    assert again.losses == record.losses
    assert again.first_step == killed_at // 2 * 2
    assert list(checkpoint.parent.iterdir() if checkpoint.parent.exists() else []) == []


def test_a_killed_stage_goes_on_only_from_the_weights_that_it_started_from(tmp_path):
    stages, file, checkpoint = three_stages(), tmp_path / "one.safetensors", tmp_path / "two.part"
    first = Staged()
    run(first, stages["one"])
    save_stage(file, first.parts, stages["one"])
    model = Staged()
    ancestry = load_stage(stages["two"], model.parts, {"one": file}, stages)
    with pytest.raises(Killed):
        run(model, stages["two"], ancestry=ancestry, checkpoint=checkpoint, on_step=killed(3))
    with pytest.raises(LabError, match=r"checkpoint .*two\.part belongs to run 'two-[0-9a-f]+', not to 'two-"):
        run(Staged(), stages["two"], checkpoint=checkpoint)
    resumed = Staged()
    ancestry = load_stage(stages["two"], resumed.parts, {"one": file}, stages)
    assert run(resumed, stages["two"], ancestry=ancestry, checkpoint=checkpoint).first_step == 2


def test_a_checkpoint_without_the_statistics_that_training_changes_does_not_fit(tmp_path):
    chosen, checkpoint = three_stages()["three"], tmp_path / "stage.safetensors"
    with pytest.raises(Killed):
        run(Staged(), chosen, checkpoint=checkpoint, on_step=killed(3))
    with safe_open(checkpoint, framework="pt") as file:
        metadata = file.metadata()
        kept = {name: file.get_tensor(name) for name in file.keys() if not name.startswith("buffer.")}  # noqa: SIM118
        assert len(kept) < len(file.keys())
    save_file(kept, checkpoint, metadata=metadata)
    with pytest.raises(LabError, match=r"checkpoint .*stage\.safetensors does not fit the model"):
        run(Staged(), chosen, checkpoint=checkpoint)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_names_step_and_stage(value):
    model, chosen = Staged(), stage()

    def loss(step: int) -> AnswerLoss:
        answer = model.loss_of_step(step)
        return AnswerLoss(answer.loss * (value if step == 2 else 1), answer.num_tokens)

    with pytest.raises(LabError, match=f"the loss is {value} at step 2 of stage 'one'"):
        train_stage(model, model.parts, chosen, loss, options(chosen))


def test_gradient_that_is_not_finite_stops_the_stage():
    model, chosen = Staged(), stage()

    def loss(step: int) -> AnswerLoss:
        answer = model.loss_of_step(step)
        return AnswerLoss(answer.loss + (model.visual_projector[0].weight.sum() * 0).sqrt(), answer.num_tokens)

    with pytest.raises(LabError, match="the gradient's norm is nan at step 0 of stage 'one'"):
        train_stage(model, model.parts, chosen, loss, options(chosen))


def test_what_would_train_and_belongs_to_no_part_is_named():
    model = Staged()
    model.stray = torch.nn.Linear(2, 2)
    with pytest.raises(LabError, match=r"stray\.weight would train in stage 'one' and belongs to no part"):
        run(model, stage())


def test_a_stage_of_the_paper_runs_only_once_its_missing_numbers_are_given():
    with pytest.raises(LabError, match="stage 'image_1' has no number of steps"):
        stage_options(PAPER_STAGES["image_1"])
    with pytest.raises(LabError, match="a learning rate of stage 'audio' is not found"):
        stage_options(replace(PAPER_STAGES["audio"], steps=5))
    model, chosen = Staged(), replace(PAPER_STAGES["image_1"], steps=2)
    with pytest.raises(LabError, match=r"unknown schedule of stage 'image_1': 'not found'.*; choose one of: constant"):
        run(model, chosen)
    assert len(run(model, replace(chosen, schedule="cosine")).losses) == 2
