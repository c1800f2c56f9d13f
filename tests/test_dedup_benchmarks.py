import random
import re

import numpy as np
import pytest

from benchmarks import dedup, dedup_thresholds, near_duplicates
from lab.data.filters.filtering import Filtered
from lab.errors import LabError
from tests.data.fakes import chatterbot_package, fortunes_package

NAMES = [f"{a}{b}" for a in ("red", "old", "wet", "shy", "odd") for b in ("cat", "dog", "hen", "fox", "owl", "bee")]


def sentences_of(count: int) -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.sample(NAMES, 8)) + "." for _ in range(count)]


def test_the_made_embeddings_hold_as_many_twins_above_the_threshold_as_said():
    rows = dedup.made(2000, threshold=0.9, spread=0.6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    earlier, later = dedup.all_pairs(rows, 0.9)
    expected = np.argwhere(np.triu(rows @ rows.T >= 0.9, 1))
    assert sorted(zip(earlier.tolist(), later.tolist(), strict=True)) == sorted(map(tuple, expected.tolist()))
    # Of 200 twins two thirds lie above; five standard deviations are 33. Twins of one original may add some pairs.
    assert 100 <= len(earlier) <= 175


def test_the_dedup_benchmark_prints_both_sides_at_both_sizes(capsys):
    dedup.main(["--from", "300", "--samples", "900", "--threads", "1"])
    printed = capsys.readouterr().out
    assert len(re.findall(r"ratio, all pairs / ours: \d+\.\d", printed)) == 2
    assert "100.00% of" in printed
    assert re.search(r"growth from 300 to 900: all pairs \d+\.\d times, ours \d+\.\d times", printed)


@pytest.mark.parametrize("options", [["--from", "50"], ["--samples", "200"], ["--threshold", "1"], ["--spread", "0"]])
def test_sizes_and_thresholds_that_make_no_sense_are_refused(options):
    with pytest.raises(LabError, match="the benchmark needs 100 <= --from < --samples"):
        dedup.main(["--from", "200", *options])


def test_planted_copies_have_as_many_edits_as_said():
    texts = sentences_of(40)
    corpus = dedup_thresholds.planted(texts)
    assert corpus.texts[:40] == texts
    assert corpus.edits == [0] * 40 + [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert not set(corpus.texts[40:]) & set(texts)
    assert dedup_thresholds.planted(texts) == corpus


def test_a_perfect_filter_has_precision_and_recall_of_one():
    corpus = dedup_thresholds.planted(sentences_of(40))
    ids = [str(i) for i in range(50)]
    perfect = ["copy" if count else None for count in corpus.edits]
    half = [reason if i % 2 else None for i, reason in enumerate(perfect)]
    runs = {0.5: perfect, 0.7: half, 0.9: [None] * 50}
    lines = dedup_thresholds.table(
        corpus, lambda threshold: Filtered(ids, runs[threshold], name="f", parameters={}), list(runs)
    ).splitlines()
    assert lines[2] == "| 0.5 | 80.0% | 1.000 | 1.000 | 1.00 | 1.00 | 1.00 | 1.00 |"
    assert lines[3] == "| 0.7 | 90.0% | 1.000 | 0.500 | 0.00 | 1.00 | 0.00 | 1.00 |"
    assert lines[4] == "| 0.9 | 100.0% | none dropped | 0.000 | 0.00 | 0.00 | 0.00 | 0.00 |"


def test_the_thresholds_command_prints_a_table_a_filter(capsys):
    chatterbot_package(sentences_of(60))
    fortunes_package("\n%\n".join("A" + text for text in sentences_of(20)))
    dedup_thresholds.main(["--sentences", "60", "--filters", "near_duplicates"])
    printed = capsys.readouterr().out
    assert "60 sentences, 15 edited copies planted" in printed
    assert len(re.findall(r"^\| 0\.\d \| \d+\.\d% \|", printed, re.MULTILINE)) == 7
    with pytest.raises(LabError, match="unknown filter 'semantic'"):
        dedup_thresholds.main(["--filters", "semantic"])
    with pytest.raises(LabError, match="--sentences is 3, expected at least 16"):
        dedup_thresholds.main(["--sentences", "3", "--filters", "near_duplicates"])


def test_the_rate_of_the_filter_of_wording_is_printed(capsys):
    fortunes_package("\n%\n".join("A" + text for text in sentences_of(20)))
    near_duplicates.main(["--samples", "200"])
    printed = capsys.readouterr().out
    assert re.search(r"[\d,]+ samples a second on the wall, [\d,]+ of processor time", printed)
    assert re.search(r"\d+\.\d\d% of \d+ copies of texts that stay are gone", printed)
    with pytest.raises(LabError, match="--samples is 5, expected at least 10"):
        near_duplicates.main(["--samples", "5"])
