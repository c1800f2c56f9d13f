"""The report's visual projectors: accuracy against the visual tokens that a question costs."""

from typing import TYPE_CHECKING

from lab.paper.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(measured: Measured) -> "Figure":
    """A point a projector."""
    from lab.paper.cost_figure import draw_cost

    return draw_cost(
        measured,
        "What a language model answers of pictures, by the visual projector",
        cost="visual_tokens_per_question",
        label="visual tokens a question",
    )
