import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

from lab.data.filters.filtering import Filtered
from lab.data.packing import pack_best_fit
from lab.data.sample import Drawn, Image, Sample, Text
from lab.data.speech.corpora import Corpus
from lab.data.video import VideoFrames
from lab.evaluation.statistics import Interval
from lab.evaluation.verdict import Verdict
from lab.explore.shown import MAX_PICTURES, SHOWN, curve, facts, html_of, register
from lab.study.ablation import cells, load_ablation
from lab.study.scale import scale
from lab.training.checkpoints import TrainingRecord
from lab.training.packing_certificate import Check, PackingCertificate
from lab.training.stages import PAPER_STAGES

FRAMES = np.full((3, 8, 8, 3), 200, dtype=np.uint8)


def video(frames: int = 3) -> VideoFrames:
    return VideoFrames(
        frames=np.zeros((frames, 8, 8, 3), dtype=np.uint8),
        seconds=np.arange(frames, dtype=np.float64),
        duration_seconds=float(frames),
    )


def corpus(folder: Path) -> Corpus:
    import pandas as pd

    one = {"id": "a", "text": "hello", "speaker": "s", "split": "test", "start": 0, "num_samples": 16_000 * 36}
    pd.DataFrame([one]).to_parquet(folder / "utterances.parquet")
    (folder / "audio.i16").write_bytes(bytes(2 * 16_000 * 36))
    counts = {"test": {"utterances": 1, "seconds": 36.0}}
    told = {"name": "toy", "language": "en", "licence": "<free>", "sources": {}, "sha256": "0", "splits": counts}
    (folder / "manifest.json").write_text(json.dumps(told))
    return Corpus(folder=folder)


def made(folder: Path) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """One of every class, and what has to stand in what is shown of it."""
    study = load_ablation("conv_gmlp_rate")
    counted = scale(load_ablation("loss_filter"), "cpu", ["none"])
    kept = Filtered(["a", "b"], [None, "empty"], name="not_empty", parameters={"least": 1})
    packs = pack_best_fit([7, 6, 4, 3, 2], 10)
    leak = Check(name="other text: logits", difference=0.5, tolerance=0.0)
    certificate = PackingCertificate(attention="sdpa", precision="float32", checks=(leak,))
    interval = Interval(
        estimate=0.356,
        low=0.325,
        high=0.387,
        confidence=0.95,
        num_seeds=3,
        num_utterances=400,
        num_sentences=338,
    )
    verdict = Verdict(
        outcome="undecided",
        effect=0.02,
        interval=(-0.01, 0.05),
        p_value=0.1,
        further_seeds=1,
        hopeless=False,
        reason="",
        sentence="the gap goes from 1 < 2",
    )
    picture = Image(Drawn(lambda sight: FRAMES[0], ()))
    sample = Sample(id="1", task="colour", content=(picture, Text("Which?")), choices=("red", "blue"), answer="blue")
    record = TrainingRecord(losses=[2.0, 1.0], learning_rates=[1.0, 1.0], seconds=3.0, peak_memory_bytes=10**9)
    return {
        "lab.study.ablation.Ablation": (study, (study.rows[0].label, "downsample_rate = 2", "0<br>1<br>2")),
        "lab.study.ablation.Cell": (cells(study, "cpu")[0], ("conv_gmlp_2, seed 0", "learning_rate")),
        "lab.training.stages.Stage": (PAPER_STAGES["image_1"], ("visual_projector = 0.001", "image_1")),
        "lab.training.checkpoints.TrainingRecord": (record, ("<svg", "2 to 1 in 2 steps", "1,000,000,000")),
        "lab.training.memory.Memory": (counted.rows["none"].memory, ("language_model", "flops")),
        "lab.training.packing_certificate.PackingCertificate": (certificate, ("False", "other text: logits", "0.5")),
        "lab.data.sample.Sample": (sample, ("data:image/png;base64,", "red<br>blue", "Which?")),
        "lab.data.video.VideoFrames": (video(), ("<img", "2.00 s")),
        "lab.data.speech.corpora.Corpus": (corpus(folder), ("&lt;free&gt;", "utterances")),
        "lab.data.packing.Packs": (packs, ("5 samples (22 tokens) in 3 packs",)),
        "lab.data.filters.filtering.Filtered": (kept, ("not_empty", "empty = 1", "least = 1")),
        "lab.evaluation.statistics.Interval": (interval, ("0.356", "0.325", "0.387", "400")),
        "lab.evaluation.verdict.Verdict": (verdict, ("undecided", "1 &lt; 2")),
    }


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, tuple[str, ...]]]:
    return made(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def shell():
    found = InteractiveShell()
    register(found)
    return found


def test_every_class_that_is_shown_is_there_and_has_an_example_here(examples):
    for name in SHOWN:
        module, _, kind = name.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), kind), type), name
    assert examples.keys() == SHOWN.keys()


@pytest.mark.parametrize("name", SHOWN)
def test_an_object_shows_itself_as_html(name, shell, examples):
    shown, expected = examples[name]
    found = shell.display_formatter.formatters["text/html"](shown)
    assert found is not None
    for words in expected:
        assert words in found


def test_a_long_video_is_shown_by_its_first_and_last_frame_and_some_between():
    shown = html_of(video(20))
    assert shown.count("<img") == MAX_PICTURES
    assert "0.00 s" in shown
    assert "19.00 s" in shown


def test_a_curve_has_a_point_for_every_pixel_at_most_and_says_its_ends():
    shown = curve([float(value) for value in range(1000)])
    assert shown.count(",") <= 2 * 240
    assert "0 to 999 in 1,000 steps" in shown
    assert "<svg" in curve([1.0])


def test_facts_are_texts_and_no_html_and_what_is_empty_is_left_out():
    assert "&lt;b&gt;" in facts({"<b>": 1})
    assert "nothing" not in facts({"nothing": (), "a": 1})


def test_lab_registers_by_itself_where_ipython_runs_and_imports_nothing_of_the_rooms(tmp_path):
    script = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell; s = InteractiveShell.instance(); "
        "import lab; print(len(s.display_formatter.formatters['text/html'].deferred_printers), "
        "any(m.startswith('lab.data') or m == 'torch' for m in sys.modules))"
    )
    environment = {"IPYTHONDIR": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == [str(len(SHOWN)), "False"]
