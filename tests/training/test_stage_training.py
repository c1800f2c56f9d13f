import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lab.errors import LabError
from lab.training.batches import BatchOptions
from lab.training.stage_training import Ancestry, StagesRecord
from lab.training.stages import PAPER_STAGES, Stage
from tests.training.staged import Rows, Staged, equal, run, stage, state, three_stages


def test_only_the_stages_parts_change_and_the_loss_falls():
    model, chosen = Staged(), replace(three_stages()["two"], steps=100, starts_from=())
    chosen = replace(chosen, learning_rates={"visual_projector": 0.1, "vision_encoder": 0.1})
    before = {name: state(part) for name, part in model.parts().items()}
    record = run(model, chosen)
    assert [equal(before[name], state(part)) for name, part in model.parts().items()] == [False, False, True]
    assert sum(record.losses[-10:]) < 0.9 * sum(record.losses[:10])
    assert not model.training


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.01 + 0.99 * 0.5 * (1 - math.sqrt(0.75))), ("constant", 1)])
def test_each_part_follows_the_schedule_from_its_own_peak(monkeypatch, schedule, last):
    chosen = replace(three_stages()["two"], schedule=schedule, steps=8, starts_from=())
    seen: list[list[float]] = []

    class Watched(torch.optim.AdamW):
        def step(self, closure=None):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    model = Staged()
    record = run(model, chosen, warmup_steps=2)
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


def staged(stages: Sequence[Stage], seed: int = 1, **arguments: Any) -> tuple[dict[str, torch.Tensor], StagesRecord]:
    model = Staged()
    torch.manual_seed(seed)
    record = run(model, *stages, **arguments)
    return state(model), record


@pytest.mark.parametrize("changes", [{}, {"accumulate": 3}, {"workers": 1}])
@pytest.mark.parametrize("killed_at", [[0], [3], [5], [6], [9], [15], [2, 9, 17]])
def test_stages_that_were_killed_end_bit_equal_to_ones_that_were_not(tmp_path, killed_at, changes):
    stages, checkpoint = list(three_stages().values()), tmp_path / "runs" / "cell.safetensors"
    whole, record = staged(stages)
    if changes == {"accumulate": 3}:
        whole, record = staged(stages, **changes)
    for number, step in enumerate(killed_at):
        with pytest.raises(Killed):
            # Another process begins with other numbers; only of a cell without a checkpoint are they the seed's.
            staged(stages, seed=99 if number else 1, checkpoint=checkpoint, on_step=killed(step), **changes)
    last = killed_at[-1]
    told: list[int] = []
    going_on = {**changes, "checkpoint": checkpoint, "on_step": lambda step, loss: told.append(step)}
    resumed, again = staged(stages, seed=99 if last >= 2 else 1, **going_on)
    # Batch norm's statistics too, which are no parameters.
    assert equal(whole, resumed)
    assert (again.losses, again.learning_rates, again.ancestry) == (
        record.losses,
        record.learning_rates,
        record.ancestry,
    )
    # Stages have six steps; what is kept is every second step of a stage, and its start but the first's.
    assert told[0] == last // 6 * 6 + last % 6 // 2 * 2
    assert list(checkpoint.parent.iterdir()) == []


def test_data_that_a_later_stage_refuses_is_found_before_the_first_trains():
    steps: list[int] = []
    with pytest.raises(LabError, match="stage 'three' has no example of 'captions' to train on"):
        run(
            Staged(),
            *three_stages().values(),
            own_data={"three": {"captions": Rows(0)}},
            on_step=lambda step, loss: steps.append(step),
        )
    assert steps == []


def test_the_steps_told_are_counted_over_all_stages():
    told: list[tuple[int, float]] = []
    _, record = staged(list(three_stages().values()), on_step=lambda *point: told.append(point))
    assert told == list(enumerate(record.losses))
    assert len(told) == 18
    assert [link.stage for link in record.ancestry] == ["one", "two", "three"]
    assert record.costs() == {"lm_tokens": 18 * 8, "decoded_frames": 0, "padding_share": 0.0}


def test_a_step_of_several_batches_sees_as_many_and_its_loss_is_their_mean():
    chosen = stage(steps=2, learning_rates={"visual_projector": 1e-9})
    for part in (model := Staged()).parts().values():
        part[2].p = 0.0
        part[1].momentum = 0.0
    one = run(model, replace(chosen, steps=4), batches=BatchOptions(size=4))
    two = run(model, chosen, batches=BatchOptions(size=4), accumulate=2)
    means = [(a + b) / 2 for a, b in zip(one.losses[::2], one.losses[1::2], strict=True)]
    assert two.losses == pytest.approx(means, rel=1e-4)
    assert len(two.batches[0]) == 4


def test_a_killed_stage_goes_on_only_from_the_weights_that_it_started_from(tmp_path):
    stages, checkpoint = three_stages(), tmp_path / "two.part"

    def follows() -> tuple[Staged, Ancestry]:
        model = Staged()
        torch.manual_seed(0)
        return model, run(model, stages["one"]).ancestry

    model, ancestry = follows()
    with pytest.raises(Killed):
        run(model, stages["two"], ancestry=ancestry, checkpoint=checkpoint, on_step=killed(3))
    other = (replace(ancestry[0], weights={**ancestry[0].weights, "visual_projector": "another"}),)
    with pytest.raises(LabError, match=r"checkpoint .*two\.part belongs to run 'two-[0-9a-f]+', not to 'two-"):
        run(Staged(), stages["two"], ancestry=other, checkpoint=checkpoint)
    with pytest.raises(LabError, match=r"belongs to run 'two-[0-9a-f]+', not to 'two-"):
        run(Staged(), stages["two"], ancestry=ancestry, seed=1, checkpoint=checkpoint)
    model, ancestry = follows()
    told: list[int] = []
    run(model, stages["two"], ancestry=ancestry, checkpoint=checkpoint, on_step=lambda step, loss: told.append(step))
    assert told[0] == 2


def test_a_checkpoint_without_the_statistics_that_training_changes_does_not_fit(tmp_path):
    chosen, checkpoint = stage(), tmp_path / "stage.safetensors"
    with pytest.raises(Killed):
        run(Staged(), chosen, checkpoint=checkpoint, on_step=killed(3))
    with safe_open(checkpoint, framework="pt") as file:
        metadata = file.metadata()
        kept = {name: file.get_tensor(name) for name in file.keys() if not name.startswith("buffer.")}  # noqa: SIM118
        assert len(kept) < len(file.keys())
    save_file(kept, checkpoint, metadata=metadata)
    with pytest.raises(LabError, match=r"checkpoint .*stage\.safetensors does not fit the model"):
        run(Staged(), chosen, checkpoint=checkpoint)


def test_loss_that_is_not_finite_names_step_and_stage():
    model = Staged()
    model.language_model[3].bias.data[0] = math.inf
    with pytest.raises(LabError, match="the loss is inf at step 0 of stage 'one'"):
        run(model, stage())


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_stops_the_stage_in_one_sentence(workers):
    with pytest.raises(LabError) as raised:
        run(Staged(), stage(), data={"captions": Rows(refused=7)}, workers=workers)
    assert str(raised.value) == "row 7 cannot be read"


def test_stages_out_of_order_are_refused():
    one, two, three = three_stages().values()
    with pytest.raises(LabError, match="stage 'two' starts from 'one'; trained so far: nothing"):
        run(Staged(), two)
    with pytest.raises(LabError, match="stage 'three' starts from 'two' and stands after 'one'; trained so far: 'one'"):
        run(Staged(), one, three, two)
    with pytest.raises(LabError, match="stage 'apart' starts from the pretrained parts alone and stands after 'one'"):
        run(Staged(), one, stage("apart"))
    with pytest.raises(LabError, match="stage 'one' is trained already, or twice in one list"):
        run(Staged(), one, one)
    with pytest.raises(LabError, match="the start in stage 'one' is not found in the paper"):
        run(Staged(), stage(starts_from=None))


def test_a_stage_of_the_paper_runs_only_once_its_missing_numbers_are_given():
    with pytest.raises(LabError, match="stage 'image_1' has no number of steps"):
        run(Staged(), PAPER_STAGES["image_1"])
    with pytest.raises(LabError, match="learning rate of audio_encoder in stage 'audio' is not found in the paper"):
        replace(PAPER_STAGES["audio"], steps=5).rates(0)
    model, chosen = Staged(), replace(PAPER_STAGES["image_1"], steps=2)
    with pytest.raises(LabError, match=r"unknown schedule of stage 'image_1': 'not found'.*; choose one of: constant"):
        run(model, chosen)
    assert len(run(model, replace(chosen, schedule="cosine")).losses) == 2


def test_a_part_may_start_as_another_and_goes_its_own_way(tmp_path):
    one = stage("one")
    two = stage("two", starts_from=("one",), starts_as={"language_model": "visual_projector"})
    model, checkpoint = Staged(), tmp_path / "cell"
    record = run(model, one, two)
    assert "language_model" in record.ancestry[-1].trained
    parts = model.parts()
    first = Staged()
    run(first, one)
    assert equal(state(parts["language_model"]), state(first.parts()["visual_projector"]))
    assert not equal(state(parts["language_model"]), state(parts["visual_projector"]))
    with pytest.raises(Killed):
        run(Staged(), one, two, checkpoint=checkpoint, on_step=killed(6))
    resumed = Staged()
    run(resumed, one, two, checkpoint=checkpoint)
    assert equal(state(resumed.language_model), state(model.language_model))


def test_no_stages_train_nothing():
    before, model = state(Staged()), Staged()
    record = run(model)
    assert equal(before, state(model))
    assert (record.losses, record.ancestry) == ([], ())
    assert "training_loss" not in record.results()
    assert record.costs() == {"lm_tokens": 0, "decoded_frames": 0, "padding_share": 0.0}
