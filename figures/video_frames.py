"""Table 10 of the report: how much is seen of a video, a line a row, and what is answered by kind of question."""

from pathlib import Path
from typing import TYPE_CHECKING

from lab.paper.figure_frame import draw_figure
from lab.paper.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def main(rung: str = "cpu") -> list[Path]:
    """Draw the rung's results; see `draw_figure`."""
    return draw_figure(Path(__file__), rung, draw)


def draw(measured: Measured) -> "Figure":
    """A line a row, the paper's numbers apart, and beneath them the rows by kind of question."""
    from lab.paper.panels_beneath import draw_kinds, kinds_height
    from lab.paper.row_figure import draw_rows

    below = (kinds_height(measured), draw_kinds)
    return draw_rows(measured, "What a language model answers about video, by what it sees of it", below)


if __name__ == "__main__":
    main()
