import pytest

from lab.errors import LabError
from lab.paper.ledger.cells import printed, reported, tables
from lab.study.ablation import ablation_files, load_ablation


def test_a_printed_percentage_is_a_fraction_and_keeps_its_cell() -> None:
    (entry,) = reported("table_9", {"fixed": "Baseline"}, columns="DocVQA", note="a note")
    assert (entry.row, entry.metric, entry.value) == ("fixed", "test_accuracy", 0.7261)
    assert entry.source.startswith("secondary: ")
    assert entry.note == "a note"
    assert entry.cell == "table_9 / Baseline / DocVQA / score"


def test_a_score_that_is_no_percentage_stays_as_it_is() -> None:
    (entry,) = reported("table_2", {"ours": "Baichuan-Omni 7B"}, columns="MME")
    assert entry.value == 2186.9


def test_several_columns_are_told_apart_by_their_names() -> None:
    entries = reported("table_9", {"fixed": "Baseline", "anyres": "AnyRes"}, columns=("DocVQA", "TextVQA"))
    assert [(entry.row, entry.value, entry.note) for entry in entries] == [
        ("fixed", 0.7261, "DocVQA"),
        ("fixed", None, ""),
        ("anyres", 0.8748, "DocVQA"),
        ("anyres", None, ""),
    ]


def test_what_is_not_found_has_no_value_no_note_and_says_so() -> None:
    (entry,) = reported("figure_6", {"pool": "Pooling, n = 2"}, columns="Mean over the ASR sets", note="of what")
    assert (entry.value, entry.source, entry.note) == (None, "not found", "")


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(LabError, match="unknown table of the paper 'table_0'"):
        reported("table_0", {"a": "b"}, columns="c")
    with pytest.raises(LabError, match="unknown row in Table 9: 'b'"):
        reported("table_9", {"a": "b"}, columns="DocVQA")


def test_a_note_quotes_what_is_printed_and_nothing_that_is_not_found() -> None:
    assert printed("table_8", "InternViT-6B (5.9B)", "Average") == "29.99"
    with pytest.raises(LabError, match="table_8 / Every other encoder / OCR / score is 'not found'"):
        printed("table_8", "Every other encoder", "OCR")


@pytest.mark.parametrize("name", ablation_files())
def test_every_number_that_an_ablation_reports_is_the_ledgers(name: str) -> None:
    keys = {cell.key: cell for of in tables().values() for cell in of.cells}
    for entry in load_ablation(name).reported:
        if entry.value is not None:
            cell = keys[entry.cell]
            assert cell.value is not None
            assert entry.value == pytest.approx(float(cell.value) / (100 if cell.unit == "%" else 1))
            assert cell.better == {c.metric: c.better for c in load_ablation(name).columns}[entry.metric]
