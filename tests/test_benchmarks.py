"""The stock side of the benchmark computes what ours does; the benchmark itself runs."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

import benchmarks.intervals as intervals_benchmark
import benchmarks.recipe as recipe_benchmark
import benchmarks.video as video_benchmark
from benchmarks.filled_store import TableClient, record
from benchmarks.sides import STOCK_NOTEBOOK
from benchmarks.stock_model import Clock, StockAudioLanguageModel, StockConvGMLP
from benchmarks.study import chosen_cell, compare, shortened
from lab.errors import LabError
from lab.parts.audio_projectors import ConvGMLP, build_audio_projector
from lab.parts.decoding import decode
from lab.parts.media_tokens import AudioTokens, Sound
from lab.parts.omni_model import Example, OmniModel
from lab.paths import repository_root
from lab.study import leases, store
from lab.study.ablation import Cell, Rung, cells, load_ablation
from lab.study.parameters import notebook_parameters
from lab.study.tracking import Recorder, provenance
from lab.training.samples import Augmentation
from tests.parts.tiny_models import HIDDEN_SIZE, language_model
from tests.speech import tiny_parameters

FEATURES = 8
NUM_FRAMES = [7, 20, 13]
ANSWERS = ["ab", "dcba", "c"]


def models(rate: int, frames_per_token: int | None) -> tuple[OmniModel, StockAudioLanguageModel]:
    """Ours and the stock one on one language model, with the same weights."""
    llm = language_model(frames_per_token=frames_per_token)
    torch.manual_seed(0)
    widths = {"hidden_size": FEATURES, "output_size": HIDDEN_SIZE, "downsample_rate": rate}
    projector = build_audio_projector("conv_gmlp", **widths)
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    mean, std = torch.randn(FEATURES), torch.rand(FEATURES) + 0.5
    tokens = AudioTokens(projector=projector, feature_mean=mean, feature_std=std)
    ours = OmniModel(language_model=llm, audio_projector=tokens).eval()
    assert isinstance(projector, ConvGMLP)
    weights = StockConvGMLP(**widths).load_ours(projector).state_dict()
    config = WhisperConfig(
        d_model=FEATURES, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, max_source_positions=1500
    )
    stock = StockAudioLanguageModel(
        encoder=WhisperEncoder(config),
        projector=StockConvGMLP(**widths),
        language_model=llm,
        start={**weights, "feature_mean": mean, "feature_std": std},
        augmentation=Augmentation(),
        clock=Clock(),
        seed=0,
    )
    return ours, stock.eval()


def spectrograms() -> torch.Tensor:
    rng = np.random.default_rng(0)
    waveforms = [rng.standard_normal(n * 320).astype(np.float32) for n in NUM_FRAMES]
    return WhisperFeatureExtractor(feature_size=80)(waveforms, sampling_rate=16000, return_tensors="pt")[
        "input_features"
    ]


def examples(encoded: torch.Tensor, model: OmniModel) -> list[Example]:
    """The utterances as our model takes them."""
    return [
        Example(content=[Sound(frames[:length])], answer=model.codec.encode(answer))
        for frames, length, answer in zip(encoded, NUM_FRAMES, ANSWERS, strict=True)
    ]


@pytest.mark.parametrize("rate", [1, 2, 4, 8])
@pytest.mark.parametrize("num_frames", [8, 11])
def test_the_convolutions_equal_our_matrix_products_forward_and_backward(rate: int, num_frames: int) -> None:
    torch.manual_seed(0)
    widths = {"hidden_size": 6, "output_size": 5, "downsample_rate": rate}
    ours = ConvGMLP(**widths)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    stock = StockConvGMLP(**widths).load_ours(ours)
    frames = torch.randn(2, num_frames, 6)
    tokens, _ = ours(frames, torch.tensor([num_frames, num_frames]))
    stock_tokens = stock(frames)
    torch.testing.assert_close(stock_tokens, tokens, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(tokens)
    (tokens * weight).sum().backward()
    (stock_tokens * weight).sum().backward()
    by_frame = ours.block.gate_proj.weight.grad.view(rate * 6, rate, 6)
    torch.testing.assert_close(stock.gate.weight.grad, by_frame.transpose(1, 2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stock.down.weight.grad, ours.block.down_proj.weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames_per_token", [None, 3])
@pytest.mark.parametrize("rate", [2, 4])
def test_a_right_padded_batch_has_the_loss_of_our_left_padded_one(rate: int, frames_per_token: int | None) -> None:
    ours, stock = models(rate, frames_per_token)
    mels, lengths = spectrograms(), torch.tensor(NUM_FRAMES)
    with torch.no_grad():
        encoded = stock.encoder(mels).last_hidden_state
        expected = ours(examples(encoded, ours))
        codec = stock.codec
        texts = [torch.tensor([*codec.start_ids, *codec.encode(answer), codec.end_id]) for answer in ANSWERS]
        losses, counts = stock.score(*stock.encode(mels, lengths), texts)
        padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        mean = stock(mels, lengths, padded, torch.tensor([len(text) for text in texts]))["loss"]
    torch.testing.assert_close(losses, expected.loss, rtol=1e-4, atol=1e-4)
    assert counts.tolist() == expected.num_tokens.tolist() == [len(answer) + 1 for answer in ANSWERS]
    torch.testing.assert_close(mean, expected.loss.sum() / expected.num_tokens.sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames_per_token", [None, 3])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generate_gives_the_answers_of_our_decoder(num_beams: int, frames_per_token: int | None) -> None:
    ours, stock = models(2, frames_per_token)
    mels, lengths = spectrograms(), torch.tensor(NUM_FRAMES)
    with torch.no_grad():
        encoded = stock.encoder(mels).last_hidden_state
        audio = stock.encode(mels, lengths)
    expected = decode(ours, examples(encoded, ours), max_new_tokens=9, num_beams=num_beams)
    assert stock.generate(*audio, max_new_tokens=9, num_beams=num_beams) == expected


def test_the_stock_notebook_takes_its_parameters_from_the_cell_and_holds_no_outputs() -> None:
    ablation = shortened("cpu", steps=None, test_utterances=5)
    cell = chosen_cell(ablation, "cpu", "conv_gmlp_4", 0)
    assert cell.parameters["steps"] <= 40
    assert cell.parameters["max_test_utterances"] == 5
    assert not ablation.rung("cpu").recorded
    assert set(notebook_parameters(STOCK_NOTEBOOK)) - {"start", "output"} <= set(cell.parameters)
    content = json.loads(STOCK_NOTEBOOK.read_text(encoding="utf-8"))
    assert content["metadata"]["kernelspec"]["language"] == "python"
    for entry in content["cells"]:
        assert not entry.get("outputs")
        assert entry.get("execution_count") is None


@pytest.mark.parametrize(
    ("rung", "row", "steps", "message"),
    [
        ("gpu", "conv_gmlp_4", None, "rung of the benchmark"),
        ("smoke", "mean_pool_mlp_4", None, "row of the benchmark"),
        ("smoke", "conv_gmlp_4", 1, "at least 2 steps"),
    ],
)
def test_what_the_stock_side_does_not_have_is_refused(rung: str, row: str, steps: int | None, message: str) -> None:
    with pytest.raises(LabError, match=message):
        chosen_cell(shortened(rung, steps=steps, test_utterances=4), rung, row, 0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_sides_train_the_same_cell_and_a_ratio_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_maker: Callable[[], None]
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    store_maker()
    rung = Rung(name="tiny", description="a test's", changes=tiny_parameters(tmp_path), recorded=False)
    ablation = replace(load_ablation("conv_gmlp_rate"), rungs=(rung,))
    cell = cells(ablation, "tiny", ["conv_gmlp_2"], [0])[0]
    printed = compare(ablation, cell, tmp_path)
    found = re.search(r"ratio of wall times, stock / ours: ([0-9.]+)", printed)
    assert found is not None
    assert float(found.group(1)) > 0
    losses = re.search(r"mean of the last 4 steps: ours ([0-9.]+), stock ([0-9.]+)", printed)
    assert losses is not None
    # A language model of three steps knows next to nothing, so that both losses are near that of guessing.
    assert float(losses.group(2)) == pytest.approx(float(losses.group(1)), rel=0.2)


@pytest.mark.slow
def test_the_sweep_benchmark_times_all_three_in_one_run() -> None:
    light = ["--imports", "import torch"]  # transformers and the rest take half a minute on a busy machine
    command = [sys.executable, "benchmarks/sweep.py", "--cells", "2", "--commands", "1", *light]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=repository_root())
    assert re.search(r"ours: -?\d+\.\d\d s of overhead a cell, over 2 cells", done.stdout)
    assert re.search(
        r"of these: the notebook's cells \d\.\d\d, kernel's start and end, saving \d\.\d\d, lease", done.stdout
    )
    assert re.search(r"papermill's command: \d+\.\d\d s of overhead a cell, median of 1", done.stdout)
    assert re.search(r"ratio, papermill's command / ours: -?\d+\.\d", done.stdout)


def test_a_run_written_into_the_tables_reads_back_as_one_by_mlflows_client(
    store_maker: Callable[[], None],
) -> None:
    store_maker()
    recorder = Recorder()
    theirs = recorder._client
    cell = Cell(ablation="toy", row="small", rung="cpu", seed=0, parameters={"size": 1, "rate": 1e-3}, key="c0ffee")
    cell = replace(cell, ingredients={"parameter.size": 1, "prepared.corpus": "5b3c"})
    own = TableClient()
    with leases.owner() as owner:
        for client in (theirs, own):
            recorder._client = client
            for status in ("FINISHED", "FAILED", "RUNNING"):
                record(recorder, cell, {**provenance(), **owner}, status, {"error": 0.25, "steps": 3.0})
        own.write()
    runs = sorted(store.read_runs(), key=lambda run: run.status)
    assert len(runs) == 6
    for first, second in zip(runs[::2], runs[1::2], strict=True):
        assert (first.status, first.tags) == (second.status, second.tags)
        assert store.read_ingredients(first) == store.read_ingredients(second)
        one, other = (theirs.get_run(run.run_id) for run in (first, second))
        assert one.data.to_dictionary() == other.data.to_dictionary()
        for name in ("status", "lifecycle_stage", "experiment_id", "run_name", "user_id"):
            assert getattr(one.info, name) == getattr(other.info, name)
        assert one.info.artifact_uri.replace(first.run_id, second.run_id) == other.info.artifact_uri
        assert (one.info.end_time is None) == (other.info.end_time is None)
        for name in ("error", "steps"):
            curves = [theirs.get_metric_history(run.run_id, name) for run in (first, second)]
            points = [[(point.step, point.value) for point in curve] for curve in curves]
            assert points[0] == points[1]


@pytest.mark.slow
def test_the_ledger_benchmark_times_both_commands_over_cells_in_every_state() -> None:
    options = ["--runs", "200", "--rows", "20", "--seeds", "5", "--repeats", "1"]
    command = [sys.executable, "benchmarks/ledger.py", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=repository_root())
    assert "200 finished cells written in" in done.stdout
    looked = re.search(r"lab status of 100 cells: \d+\.\d\d s .*: 100 cells: (.*)", done.stdout)
    assert looked is not None
    counts = {state: int(count) for count, state in (part.split() for part in looked.group(1).split(", "))}
    assert counts == {"done": 89, "failed": 2, "running": 1, "stale": 5, "missing": 3}
    assert re.search(r"planning a sweep of 100 cells: \d+\.\d\d s .*: 10 cells to do", done.stdout)


CLIP = {"seconds": 5, "scene_seconds": 2.0, "rate": 10, "size": (180, 320)}


@pytest.mark.slow
def test_both_sides_read_the_same_frames_of_the_clip_and_ratios_are_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2", reason="OpenCV is the other side: pip install -e '.[bench]'")
    clip = tmp_path / "clip.mp4"
    video_benchmark.make_clip(clip, **CLIP)
    video_benchmark.main(["--clip", str(clip), "--repeats", "1"])
    printed = capfd.readouterr().out
    assert "5 frames chosen" in printed
    for name in ("opencv", "ours"):
        assert re.search(rf"{name}: \d+\.\d\d s, .* \(medians of 1\), \d+ MB at most", printed)
    assert len(re.findall(r"ratio of (?:wall|processor) times, opencv / ours: \d+\.\d\d", printed)) == 2


def test_the_clip_moves_so_that_a_wrong_frame_would_show(tmp_path: Path) -> None:
    video_benchmark.make_clip(tmp_path / "clip.mp4", **CLIP)
    frames, seconds = video_benchmark.read_with_ours(tmp_path / "clip.mp4")
    assert seconds.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    np.savez(tmp_path / "ours.npz", frames=frames, seconds=seconds)
    np.savez(tmp_path / "opencv.npz", frames=frames + np.uint8(1), seconds=seconds)
    assert video_benchmark.compare(tmp_path)[1] <= 2.0
    np.savez(tmp_path / "opencv.npz", frames=np.roll(frames, 1, axis=0), seconds=seconds)
    with pytest.raises(LabError, match="they are not the same"):
        video_benchmark.compare(tmp_path)
    np.savez(tmp_path / "opencv.npz", frames=frames, seconds=seconds + 0.5)
    with pytest.raises(LabError, match="the sides chose other moments"):
        video_benchmark.compare(tmp_path)


def test_without_opencv_the_video_benchmark_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_benchmark.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LabError, match=r"not installed: pip install -e '\.\[bench\]'"):
        video_benchmark.main([])


@pytest.mark.parametrize(
    "options", [["--seconds", "0"], ["--repeats", "0"], ["--rate", "0"], ["--scene-seconds", "-1"]]
)
def test_a_clip_of_nothing_is_refused(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_benchmark.importlib.util, "find_spec", lambda name: True)
    with pytest.raises(LabError, match="at least 1 second"):
        video_benchmark.main(options)


def test_a_side_that_fails_is_named_with_its_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"(?s)the side ours ended with exit code 1: .*gone\.mp4 cannot be read"):
        video_benchmark.time_side("ours", tmp_path / "gone.mp4", tmp_path)


@pytest.mark.slow
def test_the_recipe_benchmark_finds_what_was_planted_within_its_memory() -> None:
    command = [sys.executable, "benchmarks/recipe.py", "--samples", "3000", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=repository_root())
    assert "dropped: 60 empty and 150 exact duplicates, all that were planted" in done.stdout
    near = re.search(r"near duplicates dropped: (\d+) \(150 were planted\)", done.stdout)
    assert near is not None
    assert 140 <= int(near.group(1)) <= 150
    assert re.search(r"peak memory of all processes: \d+ MB, within 2048 MB", done.stdout)


def test_a_recipe_benchmark_of_nothing_is_refused() -> None:
    for options in (["--samples", "99"], ["--workers", "0"]):
        with pytest.raises(LabError, match="needs --samples of at least 100 and --workers of at least 1"):
            recipe_benchmark.main(options)


def test_the_interval_benchmark_covers_by_each_interval_and_none_is_below_the_least_possible(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["intervals.py", "--studies", "50"])
    monkeypatch.setattr(intervals_benchmark, "FAMILIES", {"seeds": (0.04, 0.0, 0.0, 20)})
    intervals_benchmark.main()
    every, _, at_three = capsys.readouterr().out.partition("\n\n")
    assert len(every.splitlines()) == 2 + len(intervals_benchmark.INTERVALS)
    assert "| the studies' own | 9" in every
    assert re.search(r"^\| seeds \| \d+\.\d%, 1\.00 \|.*\| 94\.5%, 0\.\d\d \|$", at_three, re.MULTILINE)


def test_the_least_width_lies_between_the_normal_intervals_and_students() -> None:
    # Without a part of the sentences the seeds' spread has a known floor; without one of seeds all is known but that.
    for both, shared in ((1.0, 0.0), (0.5, 0.5), (0.1, 0.9)):
        least = intervals_benchmark.least_width(0.0, both, shared)
        assert stats.norm.ppf(0.9725) < least < stats.t.ppf(0.9725, 2)
        assert intervals_benchmark.least_width(0.0, 4 * both, 4 * shared) == pytest.approx(2 * least, rel=1e-3)


def test_what_benchmarks_share_is_found_wherever_one_is_started(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", "import benchmarks.sides"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
