"""Table 8 of the report: vision encoders that were trained on the same, a line each."""

from typing import TYPE_CHECKING

from lab.paper.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(measured: Measured) -> "Figure":
    """A line a row, the paper's numbers apart."""
    from lab.paper.row_figure import draw_rows

    return draw_rows(measured, "What a language model answers of pictures, by their encoder")
