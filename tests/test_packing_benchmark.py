"""The benchmark of packing runs, its sides compute the same, and its table says where packing does not pay."""

import re

import numpy as np
import pytest

import benchmarks.packing as benchmark
from lab.errors import LabError


def test_it_runs_on_a_few_samples(capsys, monkeypatch):
    lengths = {"speech": np.array([5, 9, 30, 6, 7, 40, 8, 9])}
    monkeypatch.setattr(benchmark, "read_lengths", lambda: lengths)
    monkeypatch.setattr(benchmark, "EQUAL_LENGTH", 8)
    few = ["--samples", "8", "--batch-size", "4", "--repeats", "1", "--hidden-size", "32", "--device", "cpu"]
    benchmark.main([*few, "--precision", "float32"])
    printed = capsys.readouterr().out
    rows = re.findall(r"^(speech|all_equal) +(random|sorted) +([\d.]+)%", printed, re.MULTILINE)
    assert [row[:2] for row in rows] == [(c, b) for c in ("speech", "all_equal") for b in ("random", "sorted")]
    # 114 tokens: shuffled, either both long samples share a batch or each has one to itself; sorted, 8 of 32 and 26.
    assert float(rows[1][2]) == pytest.approx(100 * (1 - 114 / (4 * 8 + 4 * 40)), abs=0.1)
    assert [float(row[2]) for row in rows[2:]] == [0, 0]


def test_sides_that_differ_are_not_compared(monkeypatch):
    inner = benchmark.packed_loss

    def off(*given):
        answer = inner(*given)
        return answer._replace(loss=answer.loss * 1.01)

    monkeypatch.setattr(benchmark, "packed_loss", off)
    monkeypatch.setattr(benchmark, "read_lengths", lambda: {"speech": np.full(4, 6)})
    with pytest.raises(LabError, match=r"a loss of speech, random, differs by 0.0099 between the sides"):
        benchmark.main(["--samples", "4", "--batch-size", "2", "--repeats", "1", "--hidden-size", "32"])


def test_too_few_samples_are_refused():
    with pytest.raises(LabError, match="as many samples as one batch holds"):
        benchmark.main(["--samples", "3"])
