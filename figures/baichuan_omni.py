"""Figure 4 of the report as it was run: what the one model answers after each of its seven stages."""

from typing import TYPE_CHECKING

from lab.paper.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(measured: Measured) -> "Figure":
    """A panel a test, a line a row, stage by stage; the last point is of all items."""
    from lab.paper.stage_figure import draw_stages

    return draw_stages(measured, "What one model answers, stage after stage")
