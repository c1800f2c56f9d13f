"""The tables of `paper_tables.md`, parsed by the tests themselves: what the code's ledger is held against."""

import re
from pathlib import Path

TEXT = Path(__file__).with_name("paper_tables.md").read_text(encoding="utf-8")


def printed(number: int) -> dict[tuple[str, str], str]:
    """What stands in Table `number`, by row and column, letter for letter."""
    block = TEXT.split(f"### Table {number}. ")[1].split("\n\n")[0].splitlines()[1:]
    # A bar between two values has no blanks around it, one between two places has.
    head, _, *body = [[part.strip() for part in re.split(r"(?:^| )\|(?: |$)", line)[1:-1]] for line in block]
    found = {}
    for row, *values in body:
        assert len(values) == len(head) - 1
        found.update({(row, column): value for column, value in zip(head[1:], values, strict=True)})
    return found


def value(number: int, row: str, column: str) -> float:
    """The number at a place that has one, the authors' own or the CER in brackets where it has two."""
    text = printed(number)[row, column]
    found: str = re.findall(r"\d+(?:\.\d+)?", text.split(" / ")[0])[-1]
    return float(found)


def bullet(title: str) -> str:
    """The line of the ablations that begins so."""
    (line,) = [line for line in TEXT.splitlines() if line.startswith(f"- {title}")]
    return line


def numbers(text: str) -> list[str]:
    """Its decimal numbers, letter for letter; sizes of models are none."""
    return re.findall(r"(?<![\d.])\d+\.\d+(?!\d*B)", text)
