"""A progress bar for whatever takes `progress`: a widget in a notebook, a line in a terminal."""

from typing import Any

from tqdm.auto import tqdm


class ProgressBar:
    """Hand it over as `progress`: `examples.kept_by(..., progress=ProgressBar("views"))`.

    It is told how many are done, of how many where that is known, and may be told a loss, which it shows. It appears
    with the first call and closes with the last; one that goes on to another total (a second data set) starts anew.

    Args:
        label: what is counted.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.bar: Any = None
        """The bar of tqdm; None before the first call and after the last."""

    def __call__(self, done: int, total: int | None = None, loss: float | None = None) -> None:
        """Show that `done` are done."""
        if self.bar is not None and (self.bar.total != total or done < self.bar.n):
            self.close()
        if self.bar is None:
            self.bar = tqdm(desc=self.label, total=total)
        if loss is not None:
            self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update(done - self.bar.n)
        if done == total:
            self.close()

    def close(self) -> None:
        """End it where it stands, as where no total was known."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
