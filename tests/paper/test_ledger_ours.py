import shutil
from pathlib import Path

import pytest

from lab import paths
from lab.errors import LabError
from lab.evaluation.statistics import bootstrap_interval
from lab.paper import tables as written_tables
from lab.paper.claims import question_of
from lab.paper.ledger.cells import table
from lab.paper.ledger.ours import Ours, tracked
from lab.paper.ledger.pages import pages
from lab.paper.measured import load_measured
from lab.study.ablation import Ablation
from lab.study.adaptive import Look, looks_path, record_look
from tests.paper.fakes import DECLARATION, GROWING_GAP, NAME, Rates, write_checkout, write_results

CONV_2 = "figure_6 / Conv-GMLP, n = 2 / Mean over the ASR sets / WER"
POOL_2 = "figure_6 / Pooling, n = 2 / Mean over the ASR sets / WER"


def declare(root: Path, **changes: str) -> None:
    """The fake declaration with its two reported numbers naming their cells; `changes` replace text."""
    text = DECLARATION.replace('note="1.5B audio LM"', f'cell="{CONV_2}"')
    text = text.replace('source="not found"', f'source="not found", cell="{POOL_2}"')
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (root / "ablations" / f"{NAME}.py").write_text(text, encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    write_checkout(root)
    declare(root)
    monkeypatch.setattr(paths, "repository_root", lambda: root)
    return root


def measure(rates: Rates, rung: str = "cpu") -> Ablation:
    """Results, and the table that was written of them."""
    ablation = write_results(rates, rung=rung)
    written_tables.write_tables(NAME, rung)
    return ablation


def of(key: str) -> Ours:
    (ours,) = tracked([key])[key]
    return ours


def test_a_cell_without_results_has_nothing(checkout: Path) -> None:
    assert tracked([CONV_2, POOL_2]) == {}


def test_a_mean_its_interval_and_its_runs_are_those_of_the_results(checkout: Path) -> None:
    measured = load_measured(measure(GROWING_GAP), "cpu")
    lines = measured.results.query("row == 'conv_gmlp_2'")
    ours = of(CONV_2)
    assert ours.value == pytest.approx(100 * lines["test_word_error_rate"].mean())
    interval = bootstrap_interval(measured.utterances, "conv_gmlp_2", metric="word_error_rate")
    assert (ours.low, ours.high) == (
        pytest.approx(100 * interval.low, abs=0.051),
        pytest.approx(100 * interval.high, abs=0.051),
    )
    assert ours.run_ids == tuple(lines["run_id"])
    assert ours.seeds == (0, 1, 2)
    assert (ours.rung, ours.measure, ours.label) == ("cpu", "WER (%)", "CONV_GMLP, n = 2")


def test_the_claim_is_the_first_that_the_row_takes_part_in(checkout: Path) -> None:
    measure(GROWING_GAP)
    claim = of(CONV_2).claim
    assert claim is not None
    assert (claim.title, claim.outcome) == ("The claim", "holds")
    assert claim.sentence.startswith("Holds: ")


def test_a_claim_that_cannot_be_judged_says_why(checkout: Path) -> None:
    measure({("conv_gmlp", 2): 0.2})
    claim = of(CONV_2).claim
    assert claim is not None
    assert claim.outcome is None
    assert claim.sentence.startswith("Not judged yet: ")


def test_a_row_that_no_claim_names_has_none(checkout: Path) -> None:
    declare(checkout, **{'row="conv_gmlp_2"': 'row="conv_gmlp_4"'})
    write_results(GROWING_GAP)
    assert of(CONV_2).claim is None


def test_each_rung_stands_by_itself_and_smoke_in_none(checkout: Path) -> None:
    write_results({("conv_gmlp", 2): 0.2}, rung="smoke")
    assert tracked([CONV_2]) == {}
    write_results({("conv_gmlp", 2): 0.2}, rung="gpu")
    assert [ours.rung for ours in tracked([CONV_2])[CONV_2]] == ["gpu"]


def test_the_first_claim_is_judged_at_the_level_of_its_looks(checkout: Path) -> None:
    ablation = measure(GROWING_GAP)
    before = of(CONV_2).claim
    look = Look(
        number=1,
        planned=4,
        seeds=(0, 1, 2),
        confidence=0.98875,
        effect=0.0,
        low=0.0,
        high=0.0,
        outcome="holds",
        data=question_of(ablation, "cpu").data((0, 1, 2)),
        when="2026-01-02T03:04:05+00:00",
    )
    record_look(ablation, "cpu", look)
    written_tables.write_tables(NAME, "cpu")
    after = of(CONV_2).claim
    assert before is not None
    assert after is not None
    assert "(95% interval" in before.sentence
    assert "(98.875% interval" in after.sentence


def test_a_file_of_looks_changed_by_hand_is_refused(checkout: Path) -> None:
    looks_path(write_results(GROWING_GAP), "cpu").write_text("[]")
    with pytest.raises(LabError, match=r"looks\.json was changed by hand"):
        tracked([CONV_2])


def test_what_was_measured_elsewhere_is_read_as_what_was_measured_here(checkout: Path) -> None:
    measure(GROWING_GAP)
    here = of(CONV_2)
    shutil.rmtree(paths.mlruns_dir() / "artifacts")
    assert of(CONV_2) == here


def test_results_without_a_table_have_means_alone(checkout: Path) -> None:
    write_results(GROWING_GAP)
    ours = of(CONV_2)
    assert (ours.low, ours.high) == (None, None)
    assert ours.claim is not None
    assert ours.claim.outcome is None
    assert "`lab tables conv_gmlp_rate --rung cpu` has not seen these results" in ours.claim.sentence


def test_a_table_of_other_results_lends_nothing(checkout: Path) -> None:
    measure(GROWING_GAP)
    write_results(GROWING_GAP, seeds=(3, 4, 5))
    ours = of(CONV_2)
    assert (ours.low, ours.high) == (None, None)
    assert ours.claim is not None
    assert ours.claim.outcome is None


def test_a_table_of_fewer_seeds_lends_nothing(checkout: Path) -> None:
    measure(GROWING_GAP)
    write_results(GROWING_GAP, seeds=(0, 1))
    claim = of(CONV_2).claim
    assert claim is not None
    assert claim.outcome is None


def test_a_metric_that_is_no_column_is_refused(checkout: Path) -> None:
    write_results(GROWING_GAP)
    declare(checkout, **{'metric="test_word_error_rate", value=0.077': 'metric="test_accuracy", value=0.077'})
    with pytest.raises(LabError, match="unknown metric in `reported` of 'conv_gmlp_rate': 'test_accuracy'"):
        tracked([CONV_2])


def test_a_results_file_changed_by_hand_is_refused(checkout: Path) -> None:
    write_results(GROWING_GAP)
    path = checkout / "ablations" / "results" / f"{NAME}.csv"
    path.write_text(path.read_text().replace("conv_gmlp_2", "conv_gmlp_4"))
    with pytest.raises(LabError, match="was changed by hand"):
        tracked([CONV_2])


def test_runs_at_the_paper_rung_get_its_verdicts(checkout: Path) -> None:
    declare(checkout, **{'Rung(name="gpu"': 'Rung(name="paper"'})
    measure(GROWING_GAP, rung="paper")
    (page,) = pages([table("figure_6")])
    shown = [(line[0], line[4], line[6]) for line in page.measured]
    assert shown == [
        ("Conv-GMLP, n = 2, Mean over the ASR sets", "paper", "direction only"),
        ("Pooling, n = 2, Mean over the ASR sets", "paper", "direction only"),
    ]
    assert page.summary.startswith("12 cells: 2 direction only, 10 not attempted.")
