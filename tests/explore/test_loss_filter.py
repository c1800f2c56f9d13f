import base64
import io
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image as Picture

from lab.data.filters.loss_filters import LOSS_COLUMNS, SUMMARY
from lab.data.instructions.instructions import instruction
from lab.data.sample import Drawn, Image, Sample, Text
from lab.errors import LabError
from lab.explore import loss_filter
from lab.explore.loss_filter import ScoredSamples, loss_filter_panel, row_saver, samples_of_scoring, samples_of_study
from lab.study.ablation import load_ablation, own_rows_file

# Mean 3, standard deviation sqrt(2.9): at k = 1 the bounds are 1.30 and 4.70.
LOSSES = np.array([0.5, 2.0, 3.0, 4.0, 5.5])
LOSSES = np.concatenate([LOSSES, LOSSES])
FAULTS = ["echo", "clean", "clean", "clean", "swapped"] * 2


def samples(seen=None, **changes):
    given = {
        "id": [f"s{i}" for i in range(10)],
        "asked": [f"ask <{i}>" for i in range(10)],
        "answer": [f"answer {i}" for i in range(10)],
        "loss": LOSSES,
        "loss_without_prompt": np.nan,
        "fault": FAULTS,
    }
    columns = {name: value for name, value in {**given, **changes}.items() if value is not None}
    return ScoredSamples(frame=pd.DataFrame(columns), seen=seen or {})


def test_the_account_the_figure_and_the_samples_follow_filter_and_k():
    panel = loss_filter_panel(samples())
    account, figure, read = panel.shown
    assert "6 of 10 kept" in account
    assert "4 of 4 dropped are faulty (precision), 4 of 4 faulty are dropped (recall)" in account
    assert "dropped below: 2" in read
    assert "ask &lt;0&gt;" in read
    lines = [line.get_xdata()[0] for line in figure.axes[0].get_lines() if len(set(line.get_xdata())) == 1]
    np.testing.assert_allclose(lines, [3 - np.sqrt(2.9), 3 + np.sqrt(2.9)])
    panel.controls["read"].value = "dropped above"
    assert "answer 4" in panel.shown[2]
    panel.controls["k"].value = 3.0
    assert "10 of 10 kept" in panel.shown[0]
    panel.controls["loss_filter"].value = "gaussian_low"
    panel.controls["k"].value = 1.0
    assert "2 of 2 dropped are faulty (precision), 2 of 4" in panel.shown[0]


def picture(key, question="how many?"):
    """A picture of one colour, which its id says."""
    shade = int(key.removeprefix("s"))
    content = (Image(Drawn(lambda sight: np.full((4, 4, 3), shade, np.uint8), ())), Text(question))
    return Sample(id=key, task="count", content=content, answer="two")


def test_a_sample_is_shown_beside_the_picture_that_it_is_about():
    assert "<img" not in loss_filter_panel(samples()).shown[2]
    read = loss_filter_panel(samples(seen={f"s{i}": picture(f"s{i}") for i in range(10)})).shown[2]
    written = [io.BytesIO(base64.b64decode(one)) for one in re.findall("data:image/png;base64,([^']*)", read)]
    assert [np.asarray(Picture.open(one)).max() for one in written] == [0, 5]  # both dropped below


def test_prompts_are_heard_each_in_a_timbre_of_its_own_and_always_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path))
    prompts = ["good morning", "one", "two", "three", "four", "good morning", *"abcd"]
    panel = loss_filter_panel(samples(asked=prompts))
    assert "<audio" not in panel.shown[2]
    panel.controls["hear"].value = True
    heard = re.findall("data:audio/wav;base64,([^']*)", panel.shown[2])
    sounds = [soundfile.read(io.BytesIO(base64.b64decode(one))) for one in heard]
    assert len(sounds) == 2
    assert all(rate == 16000 and len(wave) > 8000 and np.abs(wave).max() > 0.05 for wave, rate in sounds)
    assert len(sounds[0][0]) != len(sounds[1][0])  # one text, two voices
    again = loss_filter_panel(samples(asked=prompts))
    again.controls["hear"].value = True
    assert again.shown[2] == panel.shown[2]


def test_a_prompt_that_cannot_be_spoken_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path))
    panel = loss_filter_panel(samples(asked=[""] * 10), num_shown=1)
    panel.controls["hear"].value = True
    assert panel.error == ""
    assert "eSpeak NG says nothing for" in panel.shown[2]


def test_pictures_of_a_study_and_of_a_scoring_are_those_that_were_scored(monkeypatch, tmp_path):
    asked = []

    def opened(source, split, count):
        asked.append((source, split, count))
        return [picture(f"s{i}") for i in range(10)], {}

    monkeypatch.setattr(loss_filter, "open_samples", opened)
    images = load_ablation("loss_filter_images")
    lines = {"split": "train", "row": "none", "seed": 0, "id": ["s7", "s3"], "asked": ["swapped", "how many?"]}
    lines |= {"answer": ["how many?", "two"], "loss": [4.0, 1.0], "loss_without_prompt": [5.0, 2.0]}
    lines["fault"] = ["swapped", "clean"]
    monkeypatch.setattr(loss_filter, "load_utterances", lambda *_: pd.DataFrame(lines))
    found = samples_of_study(images, "cpu")
    assert found.frame["id"].tolist() == ["s7", "s3"]
    assert set(found.seen) >= {"s7", "s3"}
    assert found.frame["asked"].tolist() == ["swapped", "how many?"]  # as it was scored, fault and all
    base = images.base
    assert asked == [("stills", "train", base.num_pretraining + base.num_training)]
    assert found.sight.frame_size == base.frame_size

    columns = {"id": ["s2", "s9"], "loss": [1.0, 2.0], "loss_without_prompt": [None, None]}
    columns |= {"num_tokens": [3, 3], "prompt_tokens": [2, 2]}
    pq.write_table(pa.table(columns, schema=LOSS_COLUMNS), tmp_path / "part-000000.parquet")
    (tmp_path / SUMMARY).write_text("{}")
    scored = samples_of_scoring(tmp_path, "stills")
    assert set(scored.seen) >= {"s2", "s9"}
    assert scored.frame["asked"].tolist() == ["how many?"] * 2


def test_a_filter_that_needs_more_than_there_is_says_so():
    panel = loss_filter_panel(samples())
    panel.controls["loss_filter"].value = "ifd"
    assert "there is none without the prompt, by which 'ifd' divides" in panel.error
    panel = loss_filter_panel(samples(loss_without_prompt=np.full(10, 3.5)))
    panel.controls["loss_filter"].value = "ifd"
    assert panel.error == ""
    assert "6 of 10 kept" in panel.shown[0]


@pytest.mark.parametrize("name", ["log_gaussian", "median_mad", "none", "random", "gaussian_high"])
def test_every_filter_is_drawn(name):
    panel = loss_filter_panel(samples(fault=None))
    panel.controls["loss_filter"].value = name
    assert panel.error == ""
    assert "precision" not in panel.shown[0]


def test_a_choice_is_kept_as_a_row_of_the_study(monkeypatch, tmp_path):
    monkeypatch.setattr("lab.study.ablation.own_rows_file", lambda name: tmp_path / f"{name}.rows.toml")
    panel = loss_filter_panel(samples())
    saver = row_saver(panel, "loss_filter")
    label, button, said = saver.children
    button.click()
    assert "has no label" in said.value
    label.value = "Gaussian, k = 1.2"
    panel.controls["k"].value = 1.2
    button.click()
    assert "lab reproduce loss_filter --rows gaussian_k_1_2" in said.value
    row = load_ablation("loss_filter").row("gaussian_k_1_2")
    assert dict(row.changes) == {"loss_filter": "gaussian", "k": 1.2}
    button.click()
    assert "have the same parameters" in said.value
    assert not own_rows_file("loss_filter").exists()


def test_a_scoring_is_read_with_the_texts_of_its_source(monkeypatch, tmp_path):
    given = [instruction(id=f"s{i}", prompt=f"ask {i}", answer=f"say {i}", source="x", group=str(i)) for i in range(3)]
    monkeypatch.setattr(loss_filter, "read_instructions", lambda name: type("R", (), {"samples": given}))
    columns = {"id": ["s2", "s0"], "loss": [1.0, 2.0], "loss_without_prompt": [None, None]}
    columns |= {"num_tokens": [3, 3], "prompt_tokens": [2, 2]}
    pq.write_table(pa.table(columns, schema=LOSS_COLUMNS), tmp_path / "part-000000.parquet")
    (tmp_path / SUMMARY).write_text("{}")
    found = samples_of_scoring(tmp_path, "x")
    assert found.frame[["asked", "answer", "loss"]].to_numpy().tolist() == [
        ["ask 2", "say 2", 1.0],
        ["ask 0", "say 0", 2.0],
    ]
    assert found.frame["loss_without_prompt"].isna().all()
    given.pop()
    with pytest.raises(LabError, match="'x' has no sample 's2', which was scored"):
        samples_of_scoring(tmp_path, "x")
