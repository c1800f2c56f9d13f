"""The step of a recipe that filters by loss: scores of `lab score`, joined by id."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float
from numpy import ndarray

from lab.data.fetch import sha256_of
from lab.data.filters.filtering import Reasons
from lab.data.filters.hashes import hash_all
from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM, filter_losses
from lab.data.filters.losses import Losses, loss_files, read_losses
from lab.data.filters.step import CorpusStep
from lab.errors import LabError, choose


@dataclass(frozen=True, kw_only=True)
class LossFilterStep(CorpusStep):
    """Keep rows whose loss lies between the bounds of `filter`, fitted to the losses of all rows that are there.

    `scores` is what `lab score` wrote over these rows or more; `filter`, `k`, `like` and `seed` are those of
    `lab.data.filters.loss_filters.filter_losses`.
    """

    scores: Path
    filter: str = "gaussian"
    k: float = 1.0
    like: str = "gaussian"
    seed: int = 0
    use: ClassVar[str] = "loss_filter"

    def __post_init__(self) -> None:
        for name in (self.filter, self.like):
            choose({**LOSS_FILTERS, RANDOM: None}, name, "loss filter")
        if self.k < 0 or self.like == RANDOM:
            raise LabError(f"k is {self.k} and like is {self.like!r}; expected at least 0, and a filter that has a fit")

    def parameters(self) -> dict[str, Any]:
        """As declared; of the scores the name, since `identity` has their content."""
        return {**super().parameters(), "scores": self.scores.name}

    def identity(self) -> str:
        """The hash of the scores.

        Raises:
            LabError: they are not there, not finished or damaged.
        """
        return hash_all(sha256_of(file) for file in loss_files(self.scores))

    def sketch(self, shard: pa.Table) -> Float[ndarray, "rows 2"]:
        """The loss of each row, and that without the prompt.

        Raises:
            LabError: a row that was not scored.
        """
        scores = read_losses(self.scores)
        places = pc.index_in(shard["id"], value_set=scores.ids)
        if places.null_count:
            first = pc.index(pc.is_null(places), True).as_py()
            raise LabError(
                f"sample {str(shard['id'][first])!r} has no loss in {self.scores}, as have {places.null_count - 1} "
                "others of its shard; run `lab score` over the same samples"
            )
        assert scores.without_prompt is not None  # those of a file always are there, if only as NaN
        at = places.to_numpy()
        return np.column_stack([scores.losses[at], scores.without_prompt[at]])

    def decide(self, sketches: Sequence[ndarray], texts: Sequence[Any]) -> Reasons:
        """The filter's own bounds, over the rows that came this far; `texts` are the ids."""
        found = np.concatenate(sketches)
        losses = Losses(texts, found[:, 0], found[:, 1])
        return filter_losses(losses, self.filter, k=self.k, like=self.like, seed=self.seed).reasons
