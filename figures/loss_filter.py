"""The report's loss filter and its rivals: what they answer, above the losses that the filter saw and what it drops."""

from typing import TYPE_CHECKING

from lab.paper.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(measured: Measured) -> "Figure":
    """The scores, and the losses once the paper's own row was run."""
    from lab.paper.row_figure import draw_rows, losses_beneath

    return draw_rows(
        measured, "What fine-tuned models answer, by the filter of their training losses", losses_beneath(measured)
    )
