"""The sixth stage of the report: what joint training gives and costs, test by test."""

from typing import TYPE_CHECKING

from lab.paper.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(measured: Measured) -> "Figure":
    """A panel a test, a line a row."""
    from lab.paper.stage_figure import draw_tests

    return draw_tests(measured, "What joint training on all media gives and costs")
