"""The whole path of one tiny cell: papermill, kernel, training, MLflow, results file, per-utterance table."""

import dataclasses
import json
import shutil

import pytest
import torch

from lab import paths
from lab.errors import LabError
from lab.study import preparation, results
from lab.study.ablation import Rung, load_ablation
from lab.study.preparation import prepare
from lab.study.store import read_runs
from lab.study.sweep import reproduce
from lab.training import loop
from tests.speech import tiny_parameters


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rung = Rung(name="tiny", description="a test's", changes=tiny_parameters(tmp_path), recorded=False)
    return dataclasses.replace(load_ablation("conv_gmlp_rate"), rungs=(rung,))


def run(study, **options):
    return reproduce(study, rung="tiny", seeds=[0], workers=1, **options)


@pytest.mark.slow
def test_one_cell_is_trained_tracked_and_not_run_again(study, store_maker):
    store_maker()
    outcome = run(study, rows=["conv_gmlp_2"])
    assert outcome.failed == {}
    assert outcome.complete
    (line,) = results.read_lines(study, "tiny")
    measured = {name: float(value) for name, value in line.items() if name.startswith("test_")}
    table = results.load_utterances(study, "tiny")
    test = table[table["split"] == "test"]
    rate = test["character_errors"].sum() / test["num_characters"].sum()
    assert measured["test_character_error_rate"] == pytest.approx(rate)
    assert set(table["split"]) == {"dev", "test"}
    (executed,) = paths.mlruns_dir().rglob("notebooks/conv_gmlp_rate/*.ipynb")
    assert executed.stat().st_size > 1000
    finished = [record for record in read_runs() if record.status == "FINISHED"]
    again = run(study, rows=["conv_gmlp_2"])
    assert again.complete
    assert [r for r in read_runs() if r.status == "FINISHED"] == finished


@pytest.mark.slow
def test_a_cell_trained_in_packs_is_certified_and_pads_nothing(study, store_maker):
    store_maker()
    rung = dataclasses.replace(study.rungs[0], changes={**study.rungs[0].changes, "pack_tokens": 400})
    packed = dataclasses.replace(study, rungs=(rung,))
    assert run(packed, rows=["conv_gmlp_2"]).failed == {}
    (line,) = results.read_lines(packed, "tiny")
    assert float(line["padding_share"]) == 0
    (record,) = [record for record in read_runs() if record.status == "FINISHED" and record.tags["kind"] == "cell"]
    certificate = json.loads(record.artifact("packing_certificate.json").read_text(encoding="utf-8"))
    assert certificate["packing_certificate"] == "passed"
    assert certificate["num_samples"] == 3


@pytest.mark.slow
def test_a_loss_that_is_not_finite_fails_its_cell_with_step_stage_and_learning_rate(study, store_maker):
    store_maker()
    rung = dataclasses.replace(study.rungs[0], changes={**study.rungs[0].changes, "learning_rate": 1e30, "steps": 30})
    outcome = run(dataclasses.replace(study, rungs=(rung,)), rows=["conv_gmlp_2"])
    (reason,) = outcome.failed.values()
    assert "at step" in reason
    assert "of stage 'audio'" in reason
    assert "learning rate" in reason


def test_what_was_prepared_is_remembered_and_made_again_when_it_is_gone(study):
    cell = study.resolve("conv_gmlp_2", "tiny")
    threads = torch.get_num_threads()
    first = prepare([cell])
    assert torch.get_num_threads() == threads
    assert first["corpus"][cell.corpus].startswith("hub:")
    assert prepare([cell]) == first
    shutil.rmtree(paths.cache_dir() / "features")
    assert prepare([cell]) == first
    assert list((paths.cache_dir() / "features").glob("*/*/values.bin"))


def test_unknown_names_are_refused_before_anything_is_prepared(study):
    cell = study.resolve("conv_gmlp_2", "tiny")
    with pytest.raises(LabError, match=r"unknown normaliser 'english'.*whisper_english"):
        prepare([dataclasses.replace(cell, normalizer="english")])
    with pytest.raises(LabError, match=r"unknown corpus 'amazon_quen'.*did you mean 'amazon_queen'"):
        prepare([dataclasses.replace(cell, corpus="amazon_quen")])
    with pytest.raises(LabError, match=r"unknown audio projector 'conv_gmpl'.*did you mean 'conv_gmlp'"):
        prepare([dataclasses.replace(cell, projector="conv_gmpl")])
    with pytest.raises(LabError, match=r"unknown option of audio projector 'conv_gmlp': 'kernel'.*intermediate_size"):
        prepare([dataclasses.replace(cell, projector_options={"kernel": 3})])
    with pytest.raises(LabError, match="downsample_rate is 0; expected a whole number from 1 to 32"):
        prepare([dataclasses.replace(cell, downsample_rate=0)])


def test_a_machine_that_computes_otherwise_makes_other_cells_and_a_named_precision_the_same(study, monkeypatch):
    tiny = dataclasses.replace(study.resolve("conv_gmlp_2", "tiny"), device="auto", precision="auto")
    told = []
    for fast, machine in ((True, "bf16"), (False, "other")):
        monkeypatch.setattr(loop, "has_fast_bfloat16", lambda device, fast=fast: fast)
        monkeypatch.setattr(preparation, "processor", lambda machine=machine: machine)
        told.append([prepare([cell])["precision"] for cell in (tiny, dataclasses.replace(tiny, precision="float32"))])
    assert told == [
        [{"auto": "bfloat16"}, {"float32": "float32"}],
        [{"auto": "float32"}, {"float32": "float32"}],
    ]
    assert prepare([tiny])["device"] == {"auto": "cuda" if torch.cuda.is_available() else "cpu"}
    with pytest.raises(LabError, match=r"unknown device 'tpu'.*choose one of: auto, cpu, cuda"):
        prepare([dataclasses.replace(tiny, device="tpu")])
