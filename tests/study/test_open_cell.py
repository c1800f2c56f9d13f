import json

import pandas as pd
import pytest

from lab.errors import LabError
from lab.parts import saved_model
from lab.study import identity, store
from lab.study.open_cell import OpenCell
from lab.training.parameters import VisionParameters
from lab.training.stage_training import StagesRecord


@pytest.fixture
def cell(tmp_path, monkeypatch) -> OpenCell:
    """A cell that a sweep drives."""
    monkeypatch.setenv("OMNI_LAB_MLRUNS", str(tmp_path))
    (store.spool_dir("r1") / "artifacts").mkdir(parents=True)
    monkeypatch.setattr(identity, "reached_by_notebook", lambda notebook: lambda parameters: {})
    return OpenCell("vision_language", VisionParameters(image_size=64, stride=8), "r1")


def artifacts():
    return store.spool_dir("r1") / "artifacts"


def test_a_run_that_no_sweep_opened_is_refused():
    with pytest.raises(LabError, match="no sweep drives the run 'r2'"):
        OpenCell("vision_language", VisionParameters(), "r2")


def test_a_checkpoint_is_of_the_notebook_and_its_parameters(cell):
    other = OpenCell("vision_language", VisionParameters(), "r1")
    assert cell.told["checkpoint"].name.startswith("vision_language-")
    assert cell.told["checkpoint"] != other.told["checkpoint"]


def test_of_a_training_its_curves_are_kept_and_what_says_something(cell):
    cell.told["on_step"](1, 2.0)  # it went on from a checkpoint after the first step
    assert store.read_curve("r1", "loss") == [(1, 2.0)]
    record = StagesRecord([3.0, 2.0], [0.1, 0.05], 1.0, 1)
    cell.trained(record, pretrained=[{"stage": "one"}], packing_certificate=[])
    lines = [json.loads(line)[:3] for line in (store.spool_dir("r1") / "metrics.jsonl").read_text().splitlines()]
    assert sorted(lines) == [["learning_rate", 0, 0.1], ["learning_rate", 1, 0.05], ["loss", 0, 3.0], ["loss", 1, 2.0]]
    assert json.loads((artifacts() / "pretrained.json").read_text()) == [{"stage": "one"}]
    assert not (artifacts() / "packing_certificate.json").exists()
    assert not (artifacts() / "ancestry.json").exists()


def test_tables_are_kept_by_their_split_and_answers_alone_are_scored(cell):
    answers = {"dev": pd.DataFrame({"wrong": [1, 0]}), "test": pd.DataFrame({"wrong": [0, 0]})}
    seen = pd.DataFrame({"loss": [2.0]})
    scored = cell.measured(answers, lambda table, name: {f"{name}_error": table["wrong"].mean()}, train=seen)
    assert scored == {"dev_error": 0.5, "test_error": 0.0}
    kept = pd.read_parquet(artifacts() / "utterances.parquet")
    assert kept["split"].tolist() == ["dev", "dev", "test", "test", "train"]


def test_what_nothing_trained_is_kept_by_what_it_was_opened_with(cell, monkeypatch):
    given = {}
    monkeypatch.setattr(saved_model, "save_model", lambda model, folder, by_name, cell: given.update(by_name))
    assert cell.finish("model", {"test_error": 0.5}, vision_encoder="encoder") == {"test_error": 0.5}
    asked = {"name": "efficientnet_lite0", "image_size": 64, "stride": 8}
    assert given == {"vision_encoder": (asked, "encoder")}
    assert json.loads((store.spool_dir("r1") / "results.json").read_text()) == {"test_error": 0.5}
