"""The report's loss filter on questions about pictures: what rows answer, above the losses that the filter saw."""

from typing import TYPE_CHECKING

from lab.paper.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(measured: Measured) -> "Figure":
    """The scores, and the losses once the paper's own row was run."""
    from lab.paper.row_figure import draw_rows, losses_beneath

    return draw_rows(
        measured, "What models answer about pictures, by the filter of their training losses", losses_beneath(measured)
    )
