import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab import paths
from lab.errors import LabError
from lab.evaluation.sequential import look_level
from lab.paper import tables
from lab.paper.claims import load_contrasts, question_of
from lab.paper.measured import load_measured
from lab.study.ablation import Ablation
from lab.study.adaptive import Look, record_look
from lab.study.results import results_path
from tests.paper.fakes import GROWING_GAP, NAME, Rates, write_checkout, write_results

TWO_CELLS = {("conv_gmlp", 2): 0.2, ("mean_pool_mlp", 2): 0.3}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    write_checkout(root)
    monkeypatch.setattr(paths, "repository_root", lambda: root)
    return root


def lines_of(text: str, first_cell: str) -> list[str]:
    found = next(line for line in text.splitlines() if line.startswith(f"| {first_cell} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_row_shows_its_mean_interval_costs_and_reported_number(checkout: Path) -> None:
    ablation = write_results(GROWING_GAP)
    text = tables.write_tables(NAME, "cpu").read_text()
    head = lines_of(text, "Row")
    assert head[1:5] == ["Seeds", "CER (%)", "WER (%)", "Projector (M parameters)"]
    assert head[-1] == "Reported (WER, %; 1.5B audio LM)"
    cells = lines_of(text, "CONV_GMLP, n = 2")
    of_row = load_measured(ablation, "cpu").results.query("row == 'conv_gmlp_2'")
    found = re.fullmatch(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", cells[2])
    assert found is not None
    mean, low, high = (float(number) for number in found.groups())
    assert mean == pytest.approx(100 * of_row["test_character_error_rate"].mean(), abs=0.05)
    assert low < mean < high
    assert cells[1] == "3"
    assert cells[4:] == ["3", "31", "7.7"]
    assert lines_of(text, "MEAN_POOL_MLP, n = 2")[-1] == "not found"
    assert lines_of(text, "MEAN_POOL_GMLP, n = 2")[-1] == "not in the paper"


def test_the_verdict_the_control_and_the_conditions_are_said(checkout: Path) -> None:
    write_results(GROWING_GAP)
    text = tables.write_tables(NAME, "cpu").read_text()
    assert "**Claim.** Pooling errs more at high rates." in text
    assert "**The claim.** Holds: from n = 2 to n = 8 the gap between mean_pool_mlp and conv_gmlp" in text
    assert "**Form alone.** Holds: from n = 2 to n = 8 the gap between mean_pool_gmlp and conv_gmlp" in text
    assert "a small rung; not the paper's scale" in text
    assert "Corpus: actors, 50 test utterances (50 sentences); out of domain: asterisk. Seeds 0, 1, 2; 27 cells" in text
    assert "Warning" not in text


def test_form_and_size_add_up_to_the_growth_of_the_claims_gap(checkout: Path) -> None:
    write_results(GROWING_GAP)
    text = tables.write_tables(NAME, "cpu").read_text()
    line = next(line for line in text.splitlines() if line.startswith("**Form and size.**"))
    whole, form, size = (float(number) for number in re.findall(r"([+-][\d.]+) \(", line))
    assert whole == pytest.approx(form + size, abs=0.011)


def test_rows_are_compared_at_the_same_rate_with_holms_correction(checkout: Path) -> None:
    write_results(GROWING_GAP)
    text = tables.write_tables(NAME, "cpu").read_text()
    compared = [line for line in text.splitlines() if line.startswith("| mean_pool") and "− conv_gmlp" in line]
    assert len(compared) == 6
    assert "p corrected for the 6 comparisons" in text
    assert "| mean_pool_mlp − conv_gmlp | 8 | +" in text


def test_other_splits_and_corpora_do_not_enter(checkout: Path) -> None:
    measured = load_measured(write_results(GROWING_GAP), "cpu")
    assert set(measured.utterances["split"]) == {"test"}
    assert set(measured.utterances["source"]) == {"actors"}


def test_missing_cells_leave_a_table_of_what_is_there(checkout: Path) -> None:
    there = {cell: rate for cell, rate in GROWING_GAP.items() if cell not in {("conv_gmlp", 8), ("mean_pool_gmlp", 4)}}
    write_results(there, seeds=(0, 2))
    text = tables.write_tables(NAME, "cpu").read_text()
    assert lines_of(text, "CONV_GMLP, n = 2")[1] == "2 of 3 seeds"
    assert lines_of(text, "CONV_GMLP, n = 8")[1:4] == ["0 of 3 seeds", "–", "–"]
    assert "**The claim.** Not judged yet: no results of projector 'conv_gmlp' at downsample rate 8" in text
    assert "QFORMER" not in text.replace("_", "")
    assert "comparisons" in text


def test_one_cell_alone_is_a_table_too(checkout: Path) -> None:
    write_results({("mean_pool_mlp", 4): 0.3}, seeds=(1,))
    text = tables.write_tables(NAME, "cpu").read_text()
    assert lines_of(text, "MEAN_POOL_MLP, n = 4")[1] == "1 of 3 seeds"
    assert "¹ One seed: an interval over sentences only" in text
    assert "Not judged yet" in text


def test_a_smoke_table_stays_beside_the_store(checkout: Path) -> None:
    write_results(TWO_CELLS, rung="smoke")
    assert tables.write_tables(NAME, "smoke") == paths.mlruns_dir() / "results" / f"{NAME}.smoke.md"
    assert not list((checkout / "ablations" / "results").glob("*.md"))


FOUR = [(projector, n) for projector in ("conv_gmlp", "mean_pool_mlp") for n in (2, 8)]


def looked(rates: Rates, seeds: Sequence[int], sizes: Sequence[int], outcome: str = "undecided") -> Ablation:
    """Results in which `seeds` were added to the deciding rows, and looks at so many seeds each, the last at these."""
    ablation = write_results(rates, more_seeds=dict.fromkeys(FOUR, seeds))
    question = question_of(ablation, "cpu")
    for number, size in enumerate(sizes, 1):
        record_look(
            ablation,
            "cpu",
            Look(
                number=number,
                planned=4,
                seeds=tuple(range(size)),
                confidence=1 - look_level(number, 4),
                effect=0.0,
                low=0.0,
                high=0.0,
                outcome=outcome,
                data=question.data(range(size)),
                when="2026-01-02T03:04:05+00:00",
            ),
        )
    return ablation


def paragraph(text: str, title: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"**{title}.**"))


def test_a_claim_that_was_looked_at_is_judged_at_the_level_of_the_last_look_and_says_so(checkout: Path) -> None:
    ablation = looked(GROWING_GAP, (3, 4, 5), (3, 6), "holds")
    text = tables.write_tables(NAME, "cpu").read_text()
    claim = paragraph(text, "The claim")
    assert claim.startswith("**The claim.** Holds: ")
    assert "98.875% interval" in claim
    assert "to be compared with 0.0112; 6 seeds, 50 utterances" in claim
    assert claim.endswith(
        "Seeds were added until it would be decided: 2 looks were taken (at 3, 6 seeds), which share a level of 5% so "
        "that all of their intervals hold at once in 95% of such studies; this one is the last one's, and allows for "
        "the effect itself leaning, on average, towards where looking stopped."
    )
    # What was not looked at stands on the seeds that no look chose, at 95%.
    assert "95% interval" in paragraph(text, "Form alone")
    assert "3 seeds, 50 utterances" in paragraph(text, "Form alone")
    assert "with 95% intervals, on seeds 0, 1, 2 alone: " in paragraph(text, "Form and size")
    assert "On the same utterances and 3 seeds (0, 1, 2, which no look chose)" in text
    assert lines_of(text, "CONV_GMLP, n = 2")[1] == "6 (3 added²)"
    assert lines_of(text, "CONV_GMLP, n = 4")[1] == "3"
    assert "² Beyond the 3 seeds of the study: these rows rest on more than the others. Seeds were added by " in text
    whole = load_contrasts(NAME)[0].verdict(load_measured(ablation, "cpu").utterances, 0.95)
    corrected = [float(x) for x in re.findall(r"interval ([+-][\d.]+) to ([+-][\d.]+);", claim)[0]]
    assert corrected[0] < 100 * whole.interval[0]
    assert corrected[1] > 100 * whole.interval[1]


def test_seeds_of_a_round_that_was_not_looked_at_do_not_enter_the_verdict(checkout: Path) -> None:
    looked(GROWING_GAP, (3, 4), (3,), "holds")
    claim = paragraph(tables.write_tables(NAME, "cpu").read_text(), "The claim")
    assert "; 3 seeds, 50 utterances" in claim
    assert "1 look was taken (at 3 seeds)" in claim


def test_results_that_are_not_those_of_the_last_look_are_judged_as_one_look_more(checkout: Path) -> None:
    looked(GROWING_GAP, (3, 4, 5), (3, 6))
    write_results({cell: rate + 0.01 for cell, rate in GROWING_GAP.items()})  # measured anew, and not in all seeds
    claim = paragraph(tables.write_tables(NAME, "cpu").read_text(), "The claim")
    assert "98.875% interval" in claim  # the third of four
    assert "3 seeds, 50 utterances" in claim
    assert claim.endswith(
        "the results here are not those of the last one (undecided), so this is given at the level of one look more."
    )
    write_results(GROWING_GAP, more_seeds=dict.fromkeys(FOUR, (3, 4, 5)))  # and now they are again
    assert "this one is the last one's." in tables.write_tables(NAME, "cpu").read_text()


def test_looks_alone_make_a_table_out_of_date(checkout: Path) -> None:
    write_results(GROWING_GAP)
    assert "look" not in tables.write_tables(NAME, "cpu").read_text()
    looked(GROWING_GAP, (), (3,), "holds")
    assert "1 look was taken" in tables.write_tables(NAME, "cpu").read_text()


def test_seeds_added_by_hand_are_told_without_looks(checkout: Path) -> None:
    write_results(GROWING_GAP, more_seeds={("conv_gmlp", 2): (3, 4)})
    text = tables.write_tables(NAME, "cpu").read_text()
    assert lines_of(text, "CONV_GMLP, n = 2")[1] == "5 (2 added²)"
    assert "² Beyond the 3 seeds of the study: these rows rest on more than the others." in text
    assert "looking" not in text
    whole, form, size = (float(x) for x in re.findall(r"([+-][\d.]+) \(", paragraph(text, "Form and size")))
    assert whole == pytest.approx(form + size, abs=0.011)


def test_form_and_size_add_up_though_the_claims_rows_have_more_seeds(checkout: Path) -> None:
    write_results(GROWING_GAP, more_seeds=dict.fromkeys(FOUR, (3, 4, 5)))
    line = paragraph(tables.write_tables(NAME, "cpu").read_text(), "Form and size")
    whole, form, size = (float(x) for x in re.findall(r"([+-][\d.]+) \(", line))
    assert whole == pytest.approx(form + size, abs=0.011)


def test_results_that_are_missing_or_edited_are_named(checkout: Path) -> None:
    with pytest.raises(LabError, match="no results of 'conv_gmlp_rate' at rung 'cpu'; run `lab reproduce"):
        tables.write_tables(NAME, "cpu")
    with pytest.raises(LabError, match="unknown rung of 'conv_gmlp_rate': 'cpus'"):
        tables.write_tables(NAME, "cpus")
    path = results_path(write_results(TWO_CELLS), "cpu")
    path.write_text(path.read_text().replace("0.2", "0.1"))
    with pytest.raises(LabError, match="was changed by hand"):
        tables.write_tables(NAME, "cpu")


def test_results_of_a_row_that_is_not_declared_any_more_are_refused(checkout: Path) -> None:
    ablation = write_results({**TWO_CELLS, ("mean_pool_gmlp", 2): 0.3})
    kept = tuple(row for row in ablation.rows if row.key != "mean_pool_gmlp_2")
    with pytest.raises(LabError, match=r"'conv_gmlp_rate' at rung 'cpu' have the row mean_pool_gmlp_2, which is not"):
        load_measured(dataclasses.replace(ablation, rows=kept), "cpu")
