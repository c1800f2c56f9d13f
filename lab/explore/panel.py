"""A panel: controls, and what is shown for their values, drawn anew whenever one of them changes.

Shown are figures and HTML. They are widgets of their own and no outputs of a cell, so that a panel that is shown twice
is one panel, and a change from code shows like one by hand.
"""

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from lab.errors import LabError
from lab.explore.shown import text
from lab.paper.style import paper_style, with_all_letters

Shown = Figure | str
"""A string is HTML: what stands in a corpus goes through `lab.explore.shown.text` first."""


class Panel(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Controls by name, and what `show` gives for their values (given by those names).

    A `LabError` of `show` stands in the panel as a sentence; any other error is the caller's bug and is raised.
    """

    children: Any  # a trait

    def __init__(self, controls: Mapping[str, Any], show: Callable[..., Iterable[Shown]]) -> None:
        self.controls = dict(controls)
        self._show = show
        self.shown: list[Shown] = []
        """What the panel shows now."""
        self.error = ""
        self._asked: dict[str, Any] = {}
        self._below = ipywidgets.VBox()
        super().__init__([ipywidgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"}), self._below])
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self.update()

    def _changed(self, _: Any) -> None:
        # A control that changes another one has had it shown already.
        if self._values() != self._asked:
            self.update()

    def _values(self) -> dict[str, Any]:
        return {name: control.value for name, control in self.controls.items()}

    def update(self) -> None:
        """Show what the controls ask for now."""
        self.error, self._asked = "", self._values()
        try:
            with paper_style():
                self.shown = list(self._show(**self._asked))
                self._below.children = [_widget(one) for one in self.shown]
        except LabError as error:
            self.error, self.shown = str(error), []
            self._below.children = [ipywidgets.HTML(f"<p style='color:#D55E00'>{text(error)}</p>")]


def slider(description: str, value: float, low: float, high: float, step: float = 1) -> Any:
    """A slider of whole numbers, or of fractions where the step is one; the panel follows when it is let go."""
    kind = ipywidgets.FloatSlider if isinstance(step, float) else ipywidgets.IntSlider
    style = {"description_width": "initial"}
    return kind(
        value=value, min=low, max=high, step=step, description=description, style=style, continuous_update=False
    )


def _widget(shown: Shown) -> Any:
    if isinstance(shown, str):
        return ipywidgets.HTML(shown)
    written = io.BytesIO()
    with with_all_letters(shown):
        shown.savefig(written, format="png", dpi=110)
    layout = {"max_width": "100%", "align_self": "flex-start"}
    return ipywidgets.Image(value=written.getvalue(), format="png", layout=layout)
