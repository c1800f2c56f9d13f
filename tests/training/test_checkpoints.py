import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lab.errors import LabError
from lab.training import checkpoints
from lab.training.checkpoints import Checkpoint, TrainingRecord, trained_parameters
from tests.training.runs import Regression

PROGRESS = TrainingRecord([0.1, 1 / 3], [1e-3, 2e-4], 12.345678901234567)


def trained(steps: int = 2) -> tuple[Regression, torch.optim.Optimizer]:
    model = Regression()
    optimizer = torch.optim.AdamW([p for _, p in trained_parameters(model)], lr=1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        model.loss_of_step(step).loss.sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "cell.safetensors"
    model, optimizer = trained()
    Checkpoint(path=path, key="run 1").save(model, optimizer, PROGRESS)
    return path


def load(path: Path, key: str = "run 1") -> tuple[Regression, torch.optim.Optimizer, TrainingRecord]:
    model, optimizer = trained(0)
    return model, optimizer, Checkpoint(path=path, key=key).load(model, optimizer)


def test_weights_optimiser_generator_and_progress_come_back_bit_equal(tmp_path):
    path = tmp_path / "cell.safetensors"
    model, optimizer = trained()
    Checkpoint(path=path, key="run 1").save(model, optimizer, PROGRESS)
    expected_noise = torch.rand(3)
    torch.manual_seed(99)
    again, optimizer_again, progress = load(path)
    assert torch.equal(torch.rand(3), expected_noise)
    assert progress == PROGRESS
    for (name, before), (_, after) in zip(trained_parameters(model), trained_parameters(again), strict=True):
        assert torch.equal(before, after), name
    states = optimizer.state_dict()["state"], optimizer_again.state_dict()["state"]
    assert states[0].keys() == states[1].keys()
    for index, state in states[0].items():
        assert all(torch.equal(value, states[1][index][name]) for name, value in state.items())


def test_only_what_is_trained_is_written(saved):
    assert {name for name in load_file(saved) if name.startswith("model.")} == {
        f"model.trained.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }


def test_nothing_but_the_checkpoint_is_left_in_its_folder(saved):
    assert [path.name for path in saved.parent.iterdir()] == ["cell.safetensors"]


@pytest.mark.parametrize(
    "failure",
    [SafetensorError("I/O error: No space left on device (os error 28)"), OSError(errno.ENOSPC, "No space left")],
)
def test_full_disk_leaves_the_previous_checkpoint_as_it_was(saved, monkeypatch, failure):
    before = saved.read_bytes()

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half of it")
        raise failure

    monkeypatch.setattr(checkpoints, "save_file", full)
    model, optimizer = trained(3)
    with pytest.raises(LabError, match=r"cell\.safetensors cannot be written \(.*No space left.*previous one.*intact"):
        Checkpoint(path=saved, key="run 1").save(model, optimizer, PROGRESS)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["cell.safetensors"]


def test_a_run_killed_while_it_writes_leaves_the_previous_checkpoint(saved, monkeypatch):
    before = saved.read_bytes()

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    model, optimizer = trained(3)
    with pytest.raises(KeyboardInterrupt):
        Checkpoint(path=saved, key="run 1").save(model, optimizer, PROGRESS)
    assert saved.read_bytes() == before


@pytest.mark.parametrize("kept", [0, 7, 200])
def test_damaged_checkpoint_is_named(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(LabError, match=r"cell\.safetensors cannot be read .*delete it"):
        load(saved)


def test_checkpoint_of_another_run_is_refused(saved):
    with pytest.raises(LabError, match="belongs to run 'run 1', not to 'run 2'; delete it to start again"):
        load(saved, key="run 2")


def test_checkpoint_without_the_curve_so_far_is_refused(saved):
    tensors = load_file(saved)
    del tensors["progress"]
    save_file(tensors, saved, metadata={"key": "run 1"})
    with pytest.raises(LabError, match="does not fit the model: delete it to start this run again"):
        load(saved)


@pytest.mark.parametrize("change", ["shape", "name"])
def test_checkpoint_of_another_model_is_refused_and_changes_nothing(saved, change):
    model, optimizer = trained(0)
    if change == "shape":
        model.trained[2] = torch.nn.Linear(5, 4)
    else:
        model.frozen.requires_grad_(True)
    before = [parameter.clone() for _, parameter in trained_parameters(model)]
    with pytest.raises(LabError, match=r"checkpoint .*cell\.safetensors does not fit the model: delete it"):
        Checkpoint(path=saved, key="run 1").load(model, optimizer)
    for parameter, value in zip([p for _, p in trained_parameters(model)], before, strict=True):
        assert torch.equal(parameter, value)


def test_where_nothing_was_saved_nothing_is_done(tmp_path):
    model, optimizer = trained()
    nothing = Checkpoint(path=tmp_path / "none", key="run 1")
    assert nothing.load(model, optimizer) == TrainingRecord()
    assert nothing.stages_done() is None


def test_parts_that_do_not_train_are_kept_where_they_are_named_and_earlier_stages_stand_beside_them(tmp_path):
    model, optimizer = trained()
    kept = Checkpoint(path=tmp_path / "cell", key="run 1", parts=("frozen", "trained"), earlier=[{"losses": [0.1]}])
    with torch.no_grad():
        model.frozen.weight += 1
    kept.save(model, None, TrainingRecord())
    again, optimizer = trained(0)
    assert kept.load(again, optimizer) == TrainingRecord()
    assert torch.equal(again.frozen.weight, model.frozen.weight)
    assert kept.stages_done() == [{"losses": [0.1]}]
