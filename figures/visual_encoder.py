"""Table 8 of the report: vision encoders that were trained on the same, a line each."""

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
    """A line a row, the paper's numbers apart."""
    from lab.paper.row_figure import draw_rows

    return draw_rows(measured, "What a language model answers of pictures, by their encoder")


if __name__ == "__main__":
    main()
