"""The seventh stage of the report: what fine-tuning and its filters give, test by test."""

from typing import TYPE_CHECKING

from lab.paper.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(measured: Measured) -> "Figure":
    """A panel a test, a line a row."""
    from lab.paper.stage_figure import draw_tests

    return draw_tests(measured, "What fine-tuning on many tasks gives, and what each filter adds")
