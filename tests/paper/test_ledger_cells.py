import re

import pytest

from lab.errors import LabError
from lab.paper.ledger.cells import DASH, NOT_FOUND, Table, chosen, source, table, tables
from tests.paper.paper_tables import TEXT, bullet, numbers, printed, value

MARKS = {"owner": "*", "leaderboard": "◇", "authors": "", "": ""}


def as_in_the_file(of: Table, row: str, column: str) -> str:
    """A place of the ledger written as the file writes it: `a|b`, `accuracy / score`, `WER (CER)`."""
    marked = [f"{cell.printed}{MARKS[cell.measured_by]}" for cell in of.at(row, column)]
    if of.name == "table_5":
        return DASH if set(marked) == {DASH} else " / ".join(marked)
    if of.name == "table_6" and len(marked) == 2:
        return f"{marked[0]} ({marked[1]})"
    return "|".join(marked)


@pytest.mark.parametrize("number", range(1, 8))
def test_every_cell_is_that_of_the_independent_copy_and_none_is_missing_or_added(number: int) -> None:
    of = table(f"table_{number}")
    rows = list(dict.fromkeys(cell.row for cell in of.cells if cell.trust == "primary"))
    ours = {(row, column): as_in_the_file(of, row, column) for row in rows for column in of.columns}
    ours |= {(row, name): text for name, words in of.settings.items() for row, text in words.items()}
    assert ours == printed(number)
    assert [row for row in of.rows if row in rows] == list(dict.fromkeys(row for row, _ in printed(number)))


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("table_8", "Table 8"),
        ("visual_projector", "Visual projector"),
        ("table_9", "Table 9"),
        ("table_10", "Table 10"),
        ("figure_6", "Figure 6"),
        ("tables_11_12", "Tables 11/12"),
    ],
)
def test_the_ablations_have_the_numbers_of_the_copy_in_its_order_and_are_secondary(name: str, title: str) -> None:
    found = [cell for cell in table(name).cells if cell.value is not None]
    assert [cell.printed for cell in found] == numbers(bullet(title))
    assert {cell.trust for cell in found} <= {"secondary"}
    for cell in table(name).cells:
        assert (cell.printed == NOT_FOUND) == (cell.value is None) == (cell.trust == "")


def test_what_is_known_of_an_ablation_is_at_its_place() -> None:
    def at(name: str, row: str, column: str) -> str:
        return table(name).cell(row, column).printed

    siglip = "siglip-so400m-patch14-384 (428M, 384 px)"
    assert f"{siglip} OCR {at('table_8', siglip, 'OCR')}, average {at('table_8', siglip, 'Average')}" in TEXT
    assert f"InternViT-6B (5.9B) average {at('table_8', 'InternViT-6B (5.9B)', 'Average')}" in TEXT
    sets = ("DocVQA", "InfographicVQA", "OCRBench")
    assert ", ".join(f"{name} {at('table_9', 'Baseline', name)}" for name in sets) in TEXT
    assert f"with AnyRes {', '.join(at('table_9', 'AnyRes', name) for name in sets)}" in TEXT
    assert at("table_9", "AnyRes", "TextVQA") == NOT_FOUND
    assert (
        f"fixed 384 px, 64 frames: {at('table_10', 'With video pretraining, fixed 384 px, 64 frames', 'Average')}"
        in TEXT
    )
    assert f"without video pretraining: {at('table_10', 'Without video pretraining', 'Average')}" in TEXT
    for rate in (2, 4, 8):
        assert f"n={rate} **{at('figure_6', f'Conv-GMLP, n = {rate}', 'Mean over the ASR sets')}**" in TEXT
        assert at("figure_6", f"Pooling, n = {rate}", "Mean over the ASR sets") == NOT_FOUND
    for row in table("tables_11_12").rows:
        before, after = (at("tables_11_12", row, f"{when} SFT") for when in ("Before", "After"))
        assert f"{row} {before} -> {after}" in TEXT


def test_the_projectors_ordering_is_the_copys() -> None:
    (note,) = [note for note in table("visual_projector").notes if note.startswith("Ordering")]
    names = re.findall(r"(?:^|> )([A-Z][A-Za-z-]+(?: Pool)?)", note.split(": ")[1])
    assert names == ["MLP", "Mean Pool", "Concat", "C-Abs"]
    order = [bullet("Visual projector").index(name) for name in names]
    assert order == sorted(order)


def test_the_derived_means_are_those_of_the_nine_dialects() -> None:
    of = table("table_6")
    dialects = [row for row in of.rows if row.startswith("KeSpeech ")]
    assert len(dialects) == 9
    for cell in (cell for cell in of.cells if cell.trust == "derived"):
        if cell.value is None:
            assert all(printed(6)[row, cell.column] == DASH for row in dialects)
        else:
            assert float(cell.value) == pytest.approx(sum(value(6, row, cell.column) for row in dialects) / 9, abs=0.05)


def test_what_is_noted_as_inconsistent_follows_from_the_tables() -> None:
    ours, theirs = "Baichuan-Omni 7B", "VITA 8x7B"
    sets = ("WenetSpeech test_net", "WenetSpeech test_meeting")
    gains = [100 * (1 - value(6, row, ours) / value(6, row, theirs)) for row in sets]
    told = " ".join(table("table_6").inconsistencies)
    assert re.findall(r"\d+\.\d(?=%)", told) == [f"{gain:.1f}" for gain in gains]
    gain = value(7, "CoVoST-2 en2zh", ours) - value(7, "CoVoST-2 en2zh", "Qwen2-Audio-Instruct 7B")
    assert f"is {gain:.1f}." in " ".join(table("table_7").inconsistencies)
    assert sum(len(of.inconsistencies) for of in tables().values()) == 4


def test_lower_is_better_for_error_rates_alone_and_every_field_is_filled() -> None:
    for cell in (cell for of in tables().values() for cell in of.cells):
        assert (cell.better == "lower") == (cell.metric in ("WER", "CER"))
        assert cell.metric
        assert cell.unit
        assert (cell.measured_by == "") == (cell.value is None)
        assert source(cell) == NOT_FOUND or source(cell).startswith(f"{cell.trust}: ")


def test_a_cell_is_named_by_one_key() -> None:
    keys = [cell.key for of in tables().values() for cell in of.cells]
    assert len(keys) == len(set(keys))


def test_two_values_of_one_place_are_told_apart() -> None:
    of = table("table_4")
    assert of.cell("Qwen2-VL 7B", "MVBench", measured_by="owner").printed == "67.0"
    assert of.cell("Qwen2-VL 7B", "MVBench", measured_by="authors").printed == "64.4"
    message = "Table 4 has 2 cells at 'Qwen2-VL 7B', 'MVBench' with metric 'any', measured by 'anyone'.*67.0.*64.4"
    with pytest.raises(LabError, match=message):
        of.cell("Qwen2-VL 7B", "MVBench")
    with pytest.raises(LabError, match="has 0 cells"):
        of.cell("Qwen2-VL 7B", "MVBench", measured_by="leaderboard")


def test_unknown_tables_rows_and_columns_are_named_with_the_choices() -> None:
    with pytest.raises(LabError, match=r"unknown table of the paper 'tabel_1' .did you mean 'table_1'"):
        chosen(["tabel_1"])
    with pytest.raises(LabError, match=r"unknown row in Table 9: 'Anyres' .did you mean 'AnyRes'"):
        table("table_9").at("Anyres", "DocVQA")
    with pytest.raises(LabError, match=r"unknown column in Table 9: 'DocVqa'"):
        table("table_9").at("AnyRes", "DocVqa")


def test_tables_are_chosen_once_each_and_all_where_none_is_named() -> None:
    assert [of.name for of in chosen(["table_9", "table_1", "table_9"])] == ["table_9", "table_1"]
    assert [of.name for of in chosen([])] == list(tables())
