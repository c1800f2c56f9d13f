import inspect
import json

import pytest
import torch
from torch import nn

from lab.parts.joined_sequences import AnswerLoss
from lab.study import live, store
from lab.study.curves import read_curve
from lab.study.tracking import cell_run
from lab.training import image_text_training, loop, stage_loop

FUNCTIONS = (loop.train, stage_loop.train_stage, image_text_training.train_image_text)


@pytest.fixture(autouse=True)
def nobody_is_told_afterwards():
    yield
    live.unwatch()


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.0)


def train_for(steps, *, look=lambda step: None, **options):
    model = nn.Linear(1, 1)

    def loss_of_step(step):
        look(step)
        return AnswerLoss(model(torch.ones(1, 1)).square().sum()[None], torch.tensor([1]))

    return loop.train(model, loss_of_step, loop.TrainingOptions(steps=steps, learning_rate=0.1), **options)


def test_all_functions_that_are_watched_take_on_step_and_ask_for_nothing():
    live.unwatch()
    assert {(function.__module__, function.__name__) for function in FUNCTIONS} == set(live.TRAINING)
    for function in FUNCTIONS:
        parameter = inspect.signature(function).parameters["on_step"]
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is None


def test_the_losses_of_a_cell_are_seen_while_it_trains_and_are_those_of_its_record(store_maker, at_once):
    store_maker()
    seen = []
    with cell_run("", {"seed": 0}) as run:
        record = train_for(4, look=lambda step: seen.append(read_curve(run.run_id, "loss")))
        assert [len(curve) for curve in seen] == [0, 1, 2, 3]
        assert read_curve(run.run_id, "loss") == list(enumerate(record.losses))
        assert read_curve(run.run_id, "learning_rate") == []
        run.log_metrics({"loss": enumerate([9.0])})
        assert read_curve(run.run_id, "loss") == [(0, 9.0)]
    assert read_curve(run.run_id, "loss") == [(0, 9.0)]
    train_for(2)
    assert not store.spool_dir(run.run_id).exists()
    assert loop.train.__kwdefaults__["on_step"] is None


def test_training_with_an_observer_of_its_own_is_left_alone(tmp_path, at_once):
    live.watch(tmp_path)
    told = []
    record = train_for(2, on_step=lambda step, loss: told.append(loss))
    assert told == record.losses
    assert live.read_live(tmp_path) == []


def test_watching_changes_no_loss(tmp_path, at_once):
    torch.manual_seed(0)
    before = train_for(5).losses
    live.watch(tmp_path)
    torch.manual_seed(0)
    assert train_for(5).losses == before == [loss for _, loss in live.read_live(tmp_path)]


def test_a_next_stage_stands_behind_the_last_and_one_gone_on_with_keeps_its_steps(tmp_path, at_once):
    curve = live.LiveCurve(tmp_path)
    for step in (7, 8, 0, 1, 0):
        curve(step, float(step))
    assert live.read_live(tmp_path) == [(7, 7.0), (8, 8.0), (9, 0.0), (10, 1.0), (11, 0.0)]


def test_points_wait_for_their_time_and_half_a_line_is_left_out(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    curve = live.LiveCurve(tmp_path)
    curve(0, 3.0)
    curve(1, 2.0)
    assert live.read_live(tmp_path) == [(0, 3.0)]
    clock[0] += live.EVERY_SECONDS
    curve(2, 1.0)
    assert live.read_live(tmp_path) == [(0, 3.0), (1, 2.0), (2, 1.0)]
    with (tmp_path / live.FILE).open("a") as file:
        file.write(json.dumps([3, 0.5])[:-2])
    assert len(live.read_live(tmp_path)) == 3


def test_a_folder_that_is_gone_stops_no_training(tmp_path, at_once):
    live.watch(tmp_path / "gone")
    assert len(train_for(2).losses) == 2
    assert live.read_live(tmp_path / "gone") == []
