from pathlib import Path

import pytest

from lab.errors import LabError
from lab.study import limits
from lab.study.limits import check_gpus, shares, visible_gpus


@pytest.mark.parametrize("wrong", [-1, 1.5, float("nan"), 2.25])
def test_a_number_of_gpus_that_is_neither_a_share_nor_whole_is_refused(wrong: float) -> None:
    with pytest.raises(LabError, match=r"--gpus is .*; expected .* a whole number, or a share of one such as 0\.5"):
        check_gpus(wrong)


@pytest.mark.parametrize(
    ("given", "seen"),
    [("", []), ("0", ["0"]), ("2, 3", ["2", "3"]), ("1,-1,2", ["1"]), ("GPU-5b3c,GPU-91aa", ["GPU-5b3c", "GPU-91aa"])],
)
def test_gpus_are_those_that_the_environment_shows(
    monkeypatch: pytest.MonkeyPatch, given: str, seen: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == seen


def test_without_the_variable_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: a card (UUID: GPU-1)'\necho '  MIG 1g'\necho 'GPU 1: a card'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert visible_gpus() == ["0", "1"]


@pytest.mark.parametrize(
    ("devices", "each", "workers", "expected"),
    [
        ("0,1,2,3", 1, None, ["0", "1", "2", "3"]),
        ("0,1,2,3", 1, 2, ["0", "1"]),
        ("0,1,2,3,4", 2, None, ["0,1", "2,3"]),
        ("0,1", 0.5, None, ["0", "1", "0", "1"]),
        ("7", 0.3, None, ["7", "7", "7"]),
        ("7", 0.1, None, ["7"] * 10),
    ],
)
def test_cells_get_gpus_of_their_own_or_a_share(
    monkeypatch: pytest.MonkeyPatch, devices: str, each: float, workers: int | None, expected: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert shares(each, workers) == expected


def test_more_cells_than_the_gpus_hold_or_no_gpu_at_all_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(LabError, match="3 cells at once with 1 GPUs each need more than the 2 of this machine"):
        shares(1, 3)
    with pytest.raises(LabError, match=r"1 cell at once with 4 GPUs each .* lower --workers or --gpus"):
        shares(4)
    monkeypatch.setattr(limits, "visible_gpus", lambda: [])
    with pytest.raises(LabError, match="this machine shows no GPU"):
        shares(1)
