import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lab.errors import LabError
from lab.training import checkpoints
from lab.training.checkpoints import Progress, load_checkpoint, save_checkpoint, trained_parameters
from tests.training.runs import Regression

PROGRESS = Progress([0.1, 1 / 3], [1e-3, 2e-4], 12.345678901234567)


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
    save_checkpoint(path, model=model, optimizer=optimizer, progress=PROGRESS, key="run 1")
    return path


def load(path: Path, key: str = "run 1") -> tuple[Regression, torch.optim.Optimizer, Progress]:
    model, optimizer = trained(0)
    return model, optimizer, load_checkpoint(path, model=model, optimizer=optimizer, key=key)


def test_weights_optimiser_generator_and_progress_come_back_bit_equal(tmp_path):
    path = tmp_path / "cell.safetensors"
    model, optimizer = trained()
    save_checkpoint(path, model=model, optimizer=optimizer, progress=PROGRESS, key="run 1")
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
        save_checkpoint(saved, model=model, optimizer=optimizer, progress=PROGRESS, key="run 1")
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["cell.safetensors"]


def test_a_run_killed_while_it_writes_leaves_the_previous_checkpoint(saved, monkeypatch):
    before = saved.read_bytes()

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    model, optimizer = trained(3)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, model=model, optimizer=optimizer, progress=PROGRESS, key="run 1")
    assert saved.read_bytes() == before


@pytest.mark.parametrize("kept", [0, 7, 200])
def test_damaged_checkpoint_is_named(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(LabError, match=r"checkpoint .*cell\.safetensors cannot be read .*delete it to start this run"):
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
        load_checkpoint(saved, model=model, optimizer=optimizer, key="run 1")
    for parameter, value in zip([p for _, p in trained_parameters(model)], before, strict=True):
        assert torch.equal(parameter, value)
