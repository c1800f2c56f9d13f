"""Table 10 of the report: how much is seen of a video, a line a row, and what is answered by kind of question."""

from typing import TYPE_CHECKING

from lab.paper.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(measured: Measured) -> "Figure":
    """A line a row, the paper's numbers apart, and beneath them the rows by kind of question."""
    from lab.paper.row_figure import draw_rows, kinds_beneath

    return draw_rows(
        measured, "What a language model answers about video, by what it sees of it", kinds_beneath(measured)
    )
