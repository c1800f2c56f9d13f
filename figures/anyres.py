"""Table 9 of the report: reading small text with and without AnyRes, a line a row."""

from typing import TYPE_CHECKING

from lab.paper.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(measured: Measured) -> "Figure":
    """A line a row, the paper's numbers apart."""
    from lab.paper.row_figure import draw_rows

    return draw_rows(measured, "Reading small text, with and without tiles at full resolution")
