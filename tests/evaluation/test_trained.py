"""A model that a run kept, asked about a corpus, from the store to the line of evaluations.csv."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from lab import paths
from lab.data.normalizers import NORMALIZERS
from lab.errors import LabError
from lab.evaluation.answering import Transcribe, answer
from lab.evaluation.benchmarks.samples import SampleBenchmark
from lab.evaluation.items import NAMES, pooled
from lab.paper.evaluating import model_and_benchmarks
from lab.parts.omni_model import OmniModel
from lab.parts.saved_model import save_model
from lab.study import store
from lab.study.evaluations import Recorded, evaluate, read_evaluations
from lab.study.store import open_model
from lab.study.tracking import Recorder, cell_run
from lab.training.cell import heard_data
from lab.training.named_parts import open_audio_encoder
from lab.training.parameters import SpeechParameters
from tests.speech import write_corpus
from tests.test_cli import call
from tests.training.test_speech import NORMALIZER, build, tiny_parameters

OWN = {"normalizer": "whisper_english", "prompt": "", "num_beams": 2}


@dataclass(frozen=True)
class Kept:
    run_id: str
    model: OmniModel
    cell: SpeechParameters
    recorder: Recorder


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_maker: Callable[[], None]) -> Kept:
    """A run that kept a tiny model which hears."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    root = tmp_path / "checkout"
    monkeypatch.setattr(paths, "repository_root", lambda: root)
    store_maker()
    cell = SpeechParameters(**{**tiny_parameters(tmp_path), **OWN})
    encoder = open_audio_encoder(cell.audio_encoder)
    model = build(cell, encoder, heard_data(cell, encoder))
    recorder = Recorder()
    run_id = recorder.start("r, seed 0", {"rate": 2}, {"kind": "cell", "ablation": "a", "row": "r", "seed": "0"})
    run = cell_run(run_id, {})
    named = {
        "language_model": ({"name": cell.language_model}, model.language),
        "audio_encoder": ({"name": cell.audio_encoder, "window": "cropped"}, encoder),
    }
    save_model(model, run.artifact("model"), by_name=named, cell=cell.as_dict())
    run.set_results({"test_error": 0.5})
    recorder.deliver(run_id, "FINISHED")
    recorder.finish(run_id, "FINISHED")
    return Kept(run_id, model, cell, recorder)


def evaluated(model: str, source: str, *, limit: int | None = None, **options: str) -> Recorded:
    named, (benchmark,) = model_and_benchmarks(model, source)
    return evaluate(benchmark, named, options=options, limit=limit, progress=lambda done, total: None)


def test_a_kept_model_is_measured_on_any_corpus_as_its_cell_measures_it(kept: Kept, tmp_path: Path) -> None:
    own = heard_data(kept.cell, open_audio_encoder(kept.cell.audio_encoder))["test"]
    items = answer(kept.model, own, Transcribe(normalizer=NORMALIZER, num_beams=2))
    done = evaluated(kept.run_id[:8], kept.cell.corpus)
    rates = {line.metric: line for line in done.lines}
    assert set(rates) == {"word_error_rate", "character_error_rate"}
    line = rates["character_error_rate"]
    assert line.value == pooled(items, "character_errors", "num_characters")
    assert line.low <= line.value <= line.high
    assert (line.num_items, line.model) == (3, f"{kept.run_id[:8]} (a, r, seed 0)")
    settings = json.loads(line.settings)
    assert settings["normalizer.whisper_english"] == NORMALIZER.version
    assert settings["cut_off"] == f"{(items['finish_reason'] == 'length').sum()} of 3, at their limit of tokens"
    assert settings["unanswered"] == f"{(items['given'] == '').sum()} of 3, counted as wrong"
    assert settings["data"].endswith(f"@ folder {settings['data'].rpartition(' ')[2]}")
    kept_items = pd.read_parquet(store.artifact(line.run_id, "answers.parquet"))
    assert set(NAMES) <= set(kept_items)
    assert kept_items["given"].tolist() == items["given"].tolist()
    assert evaluated(kept.run_id, kept.cell.corpus) == Recorded(lines=done.lines, was_there=True)
    # Another corpus, another normaliser: other lines, and nothing was trained for them.
    other = write_corpus(tmp_path / "elsewhere", held_out=4)
    assert evaluated(kept.run_id, other).lines[0].num_items == 4
    assert evaluated(kept.run_id, other, normalizer="lowercase_alphanumeric", limit=2).lines[0].num_items == 2
    assert len({line.key for line in read_evaluations()}) == 3


def test_a_kept_model_is_mlflows_logged_model_linked_to_its_run_and_results(kept: Kept) -> None:
    client = kept.recorder._client
    (found,) = client.search_logged_models([kept.recorder.experiment_id])
    assert (found.source_run_id, found.status, found.name) == (kept.run_id, "READY", "r, seed 0")
    assert found.params == {"rate": "2"}
    assert {(metric.key, metric.value) for metric in found.metrics} == {("test_error", 0.5)}
    assert client.get_run(kept.run_id).outputs.model_outputs[0].model_id == found.model_id
    assert client.search_logged_models([kept.recorder.experiment_id], "metrics.test_error > 1") == []


def test_the_folder_is_asked_like_the_run(kept: Kept) -> None:
    folder = str(store.artifact(kept.run_id, "model"))
    by_folder, by_run = (evaluated(name, kept.cell.corpus) for name in (folder, kept.run_id))
    assert by_run == Recorded(lines=by_folder.lines, was_there=True)
    assert open_model(folder).folder == open_model(kept.run_id).folder


def test_what_cannot_be_asked_is_refused_in_one_sentence(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = kept.recorder.start("bare", {}, {"kind": "by hand"})
    kept.recorder.finish(bare, "FAILED")
    known = f"{kept.run_id[:8]} (a, r, seed 0)"
    for arguments, message in [
        (["0123abcd", "asterisk"], f"no run's id begins with '0123abcd'; runs that kept one: {known}"),
        ([bare, "asterisk"], f"run {bare[:8]} (by hand) has kept no model (FAILED); runs that kept one: {known}"),
        (
            [kept.run_id, "asterisks"],
            "unknown corpus or source of samples 'asterisks' (did you mean 'asterisk'?)",
        ),
        ([kept.run_id, "stills"], "'stills' is pictures or video, for which the model"),
        ([kept.run_id, "asterisk", "--option", "normalizer=none"], "unknown normaliser 'none'"),
        ([kept.run_id, "asterisk", "--as", "GPT-4o"], "benchmark 'asterisk' fills no cell of the paper's tables"),
    ]:
        assert call(monkeypatch, "evaluate", *arguments) == 2
        assert f"error: {message}" in capsys.readouterr().err
    assert call(monkeypatch, "ask", "0123abcd", "--text", "a") == 2
    assert "no run whose id begins so; runs that kept one" in capsys.readouterr().err
    folder = store.artifact(kept.run_id, "model")
    described = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**described, "format_version": 99}))
    assert call(monkeypatch, "evaluate", kept.run_id, "asterisk") == 2
    assert "has format version 99, and this version of the lab reads 2; save it anew" in capsys.readouterr().err


def test_options_of_a_former_cell_have_defaults(kept: Kept) -> None:
    folder = store.artifact(kept.run_id, "model")
    described = json.loads((folder / "model.json").read_text())
    del described["cell"]
    (folder / "model.json").write_text(json.dumps(described))
    benchmark = SampleBenchmark(name="own", data=kept.cell.corpus, source="own", folder=folder)
    settings = benchmark.identify("m", {}).settings
    assert settings["num_beams"] == "1"
    assert f"normalizer.{NORMALIZERS['whisper_english'].name}" in settings
    with pytest.raises(LabError, match="option num_beams is '0'; expected a whole number from 1"):
        benchmark.identify("m", {"num_beams": "0"})
