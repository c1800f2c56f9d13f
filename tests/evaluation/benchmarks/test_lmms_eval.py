import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.evaluation.benchmarks.lmms_eval import VARIABLE, find_lmms_eval, last_lines, run_lmms_eval
from tests.evaluation.benchmarks.fakes import silent
from tests.evaluation.benchmarks.lmms_eval_stand_in import StandIn


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.delenv(VARIABLE, raising=False)
    return StandIn(tmp_path / "environment")


def runs(process: Path) -> bool:
    try:
        os.kill(int(process.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def run(stand_in: StandIn, tmp_path: Path, seconds: float = 60.0, progress=silent) -> None:
    run_lmms_eval(
        [str(stand_in.path), "--output_path", str(tmp_path / "output")],
        log=tmp_path / "logs" / "one.log",
        silence_seconds=seconds,
        progress=progress,
    )


def test_the_option_goes_before_the_variable_before_the_path(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = StandIn(tmp_path / "other")
    on_path = StandIn(tmp_path / "bin", "lmms-eval")
    monkeypatch.setenv("PATH", str(on_path.folder))
    assert find_lmms_eval().command == (str(on_path.path),)
    monkeypatch.setenv(VARIABLE, str(other.path))
    assert find_lmms_eval().command == (str(other.path), "-m", "lmms_eval")
    found = find_lmms_eval(str(stand_in.path))
    assert found.command == (str(stand_in.path), "-m", "lmms_eval")
    assert found.version == "0.7.3"
    assert found.packages == {"torch": "2.15.0", "transformers": "5.23.0"}
    names = ["vllm", "vllm_chat", "vllm_one", "openai", "openai_compatible", "openai_compatible_chat", "qwen2_vl"]
    first = [found.model_class_of("own/model", name) for name in names]
    assert first == ["vllm"] * 3 + ["openai"] * 3 + ["qwen2_vl"]


def test_where_there_is_no_lmms_eval_the_error_says_how_to_have_one(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    how = rf"environment of its own .*lmms-eval==0.7.3, then give --option python=.* or set {VARIABLE}"
    with pytest.raises(LabError, match=f"lmms-eval is not installed; install it into an {how}"):
        find_lmms_eval()
    with pytest.raises(LabError, match=f"'/no/python' is no Python that can be run; .*{how}"):
        find_lmms_eval("/no/python")
    with pytest.raises(LabError, match=f"No module named '?lmms_eval.*{how}"):  # a Python, and without it
        find_lmms_eval(sys.executable)
    stand_in.tell(version="something else")
    with pytest.raises(LabError, match="does not say which lmms-eval it is, but 'something else"):
        find_lmms_eval(str(stand_in.path))
    stand_in.path.write_text("no program")
    with pytest.raises(LabError, match="cannot be run: "):
        find_lmms_eval(str(stand_in.path))


def test_this_pythons_own_is_the_last_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(sys, "executable", str(StandIn(tmp_path / "own").path))
    assert find_lmms_eval().command == (sys.executable, "-m", "lmms_eval")


def test_model_classes_that_cannot_be_listed_are_said(stand_in: StandIn):
    found = find_lmms_eval(str(stand_in.path))
    stand_in.tell(models="nothing")
    with pytest.raises(LabError, match="lists no model class"):
        found.model_class_of("own/model", "vllm")
    stand_in.tell(models=None)
    with pytest.raises(LabError, match="failed: ModuleNotFoundError: No module named 'loguru'"):
        found.model_class_of("own/model", "vllm")


def test_a_probe_that_never_answers_is_said(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch):
    stand_in.path.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr("lab.evaluation.benchmarks.lmms_eval._PROBE_SECONDS", 0.2)
    with pytest.raises(LabError, match=r"version did not answer within 0\.2 seconds"):
        find_lmms_eval(str(stand_in.path))


def test_one_that_says_nothing_is_ended(stand_in: StandIn, tmp_path: Path):
    stand_in.tell(sleep=60)
    begun = time.monotonic()
    with pytest.raises(LabError, match=r"said nothing for 0\.05 minutes .* Running generate_until requests \("):
        run(stand_in, tmp_path, seconds=3.0)
    assert time.monotonic() - begun < 20
    assert not runs(stand_in.folder / "pid")


def test_it_ends_where_who_waits_for_it_is_stopped(stand_in: StandIn, tmp_path: Path):
    stand_in.tell(sleep=60)

    def stop(done: int, total: int) -> None:
        while not (stand_in.folder / "pid").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stand_in, tmp_path, progress=stop)
    assert not runs(stand_in.folder / "pid")


def test_one_that_cannot_be_started_is_said(tmp_path: Path):
    with pytest.raises(LabError, match="lmms-eval cannot be started"):
        run_lmms_eval([str(tmp_path / "none")], log=tmp_path / "log", silence_seconds=1.0, progress=silent)


def test_all_that_was_said_is_in_the_log(stand_in: StandIn, tmp_path: Path):
    stand_in.tell(says="the end")
    run(stand_in, tmp_path)
    said = (tmp_path / "logs" / "one.log").read_text()
    assert "Running generate_until requests" in said
    assert said.endswith("the end\n")


def test_keys_and_tokens_stay_out_of_the_log(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    stand_in.tell(says="Evaluation tracker args: {'token': 'hf_abcdef'}", status=1)
    with pytest.raises(LabError, match=r"tracker args: \{'token': '\[HF_TOKEN\]'\}"):
        run(stand_in, tmp_path)
    assert "hf_abcdef" not in (tmp_path / "logs" / "one.log").read_text()


def test_the_last_lines_are_without_bars_colours_and_lengths():
    said = "\n".join(
        [*(f"line {number}" for number in range(20)), "  50%|##| 1/2 [00:01<00:01]", "", "\x1b[31mred\x1b[0m"]
    )
    assert last_lines(said) == " | ".join([*(f"line {number}" for number in range(13, 20)), "red"])
    assert last_lines("a" * 1000) == "a" * 400 + "..."
    assert last_lines("\n") == "nothing"
