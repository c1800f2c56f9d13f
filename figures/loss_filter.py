"""The report's loss filter and its rivals: what they answer, above the losses that the filter saw and what it drops."""

from functools import partial
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
    """A line a row; beneath, the losses with the fitted Gaussian, once the paper's own row was run."""
    from lab.paper.loss_panel import HEIGHT, draw_losses
    from lab.paper.row_figure import draw_rows

    row = "gaussian_1"
    was_run = row in set(measured.results["row"])
    below = (HEIGHT, partial(draw_losses, row=row)) if was_run else None
    return draw_rows(measured, "What fine-tuned models answer, by the filter of their training losses", below)


if __name__ == "__main__":
    main()
