"""The step of a recipe that filters by loss: scores of `lab score` joined by id, and `lab.data.filters.loss_filters`.

Section 3 of the paper: a Gaussian is fitted to the losses of a pretrained model, and samples outside mean +- one
standard deviation are dropped.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int8
from numpy import ndarray

from lab.data.fetch import sha256_of
from lab.data.filters.loss_columns import LossBatch, loss_files, losses_in_memory
from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM, filter_losses, loss_bounds
from lab.data.recipes.hashes import hash_all
from lab.data.recipes.shards import open_parquet
from lab.data.recipes.step import CorpusStep
from lab.errors import LabError, choose


@dataclass(frozen=True, kw_only=True)
class LossFilterStep(CorpusStep):
    """Keep rows whose loss lies between the bounds of `filter`, fitted to the losses of all rows that are there.

    `scores` is what `lab score` wrote over these rows or more; `filter`, `k`, `like` and `seed` are those of
    `lab.data.filters.loss_filters.filter_losses`. Two numbers a row are held.
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

    def reasons(self) -> tuple[str, ...]:
        """Below and above the bounds, or drawn."""
        if self.filter == RANDOM:
            return ("drawn at random",)
        return LOSS_FILTERS[self.filter].low, LOSS_FILTERS[self.filter].high

    def texts(self, shard: pa.Table) -> pa.Array:
        """The ids, for what has to be said of a sample."""
        return shard["id"].combine_chunks()

    def sketch(self, shard: pa.Table) -> Float[ndarray, "rows 2"]:
        """The loss of each row, and that without the prompt.

        Raises:
            LabError: a row that was not scored.
        """
        losses = np.full((shard.num_rows, 2), np.nan)
        scored = np.zeros(shard.num_rows, dtype=bool)
        ids = shard["id"].combine_chunks()
        for scores in self._batches():
            places = pc.index_in(scores["id"], value_set=ids)
            found = places.is_valid().to_numpy(zero_copy_only=False)
            rows = places.drop_null().to_numpy()
            for column, name in enumerate(("loss", "loss_without_prompt")):
                losses[rows, column] = scores[name].to_numpy(zero_copy_only=False)[found]
            scored[rows] = True
        if not scored.all():
            first = ids[int(scored.argmin())].as_py()
            raise LabError(
                f"sample {first!r} has no loss in {self.scores}, as have {int((~scored).sum()) - 1} "
                f"others of its shard; "
                "run `lab score` over the same samples"
            )
        return losses

    def decide(self, sketches: Sequence[ndarray], texts: Sequence[str]) -> Int8[ndarray, " rows"]:
        """The filter's own bounds, over the rows that came this far."""
        losses = np.concatenate(sketches)
        without = None if np.isnan(losses[:, 1]).all() else losses[:, 1]
        batches = losses_in_memory(texts, losses[:, 0], without)
        if self.filter == RANDOM:
            keep = filter_losses(batches, RANDOM, k=self.k, like=self.like, seed=self.seed).keep
            return (~keep).astype(np.int8)
        low, high = loss_bounds(batches, self.filter, k=self.k)
        values = LOSS_FILTERS[self.filter].value(LossBatch(lambda: texts, losses[:, 0], without))
        return (values < low) + 2 * (values > high).astype(np.int8)

    def _batches(self) -> Iterator[Mapping[str, pa.Array]]:
        for file in loss_files(self.scores):
            with open_parquet(file) as opened:
                yield from opened.iter_batches(columns=["id", "loss", "loss_without_prompt"], use_threads=False)
