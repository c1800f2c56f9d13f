"""The filters of a recipe by name, and the plain ones: empty texts, lengths, exact duplicates, a random draw, packs.

None needs more memory than a shard and a hash of 16 bytes a row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int
from numpy import ndarray
from pydantic import Field

from lab.data.filters.filtering import Filtered, Reasons, first_reason
from lab.data.filters.loss_filters import LossFilterStep
from lab.data.filters.near_duplicates import NearDuplicates
from lab.data.filters.quality import Quality
from lab.data.filters.semantic_duplicates import SemanticDuplicates
from lab.data.filters.step import LENGTHS, Columns, Step, hash_texts, media, one_of, text_lengths
from lab.data.instructions.instructions import media_of, samples_of
from lab.data.packing import pack_best_fit
from lab.data.sample import Sample
from lab.errors import LabError
from lab.paths import cache_dir

Seed = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class NotEmpty(Step):
    """Drop rows of which one of `columns` is null, empty or blank; media are a prompt too."""

    columns: Columns = ("prompt", "answer")
    use: ClassVar[str] = "not_empty"
    version: ClassVar[int] = 2

    def judge(self, known: pa.Table) -> Reasons:
        """The first column that is empty; nothing but blanks is empty."""
        empty = {name: text_lengths(known, [name], "words") == 0 for name in self.columns}
        if "prompt" in empty:
            empty["prompt"] &= pc.equal(media(known), "").to_numpy(zero_copy_only=False)
        return first_reason({f"empty {name}": holds for name, holds in empty.items()})


@dataclass(frozen=True, kw_only=True)
class LengthBetween(Step):
    """Keep rows whose texts in `columns` have together at least `least` and at most `most` of `unit`.

    `unit` is a key of `LENGTHS`.
    """

    least: Annotated[int, Field(ge=0)] = 1
    most: int
    unit: Annotated[str, one_of(LENGTHS, "unit")] = "words"
    columns: Columns = ("answer",)
    use: ClassVar[str] = "length_between"

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise LabError(f"least and most are {self.least} and {self.most}, expected least <= most")

    def judge(self, known: pa.Table) -> Reasons:
        """Too short and too long are counted apart."""
        lengths = text_lengths(known, self.columns, self.unit)
        short, long = f"below {self.least} {self.unit}", f"above {self.most} {self.unit}"
        return first_reason({short: lengths < self.least, long: lengths > self.most})


@dataclass(frozen=True, kw_only=True)
class ExactDuplicates(Step):
    """Of rows with the same texts in `columns`, keep the first; 16 bytes a row are held. Media belong to the prompt."""

    columns: Columns = ("prompt", "answer")
    use: ClassVar[str] = "exact_duplicates"
    version: ClassVar[int] = 2
    whole_corpus: ClassVar[bool] = True

    def sketch(self, rows: pa.Table) -> pa.Table:
        """128 bits of hash."""
        names = [*self.columns, *(["media"] if "prompt" in self.columns else [])]
        hashes = hash_texts(rows.append_column("media", media(rows)), names)
        return pa.table({"one": hashes[:, 0], "other": hashes[:, 1]})

    def judge(self, known: pa.Table) -> Reasons:
        """The first of equal ones stays."""
        return first_reason({"the same as an earlier row": known.to_pandas().duplicated().to_numpy()})


@dataclass(frozen=True, kw_only=True)
class RandomSample(Step):
    """Draw `num_samples` rows at random; the same ids and the same seed give the same rows, wherever they stand."""

    num_samples: Annotated[int, Field(ge=1)]
    seed: Seed = 0
    use: ClassVar[str] = "sample"
    whole_corpus: ClassVar[bool] = True

    def sketch(self, rows: pa.Table) -> pa.Table:
        """A hash of the id, chosen by the seed, stands for a draw from 0 to 1."""
        return pa.table({"draw": hash_texts(rows, ["id"], seed=self.seed)[:, 0]})

    def judge(self, known: pa.Table) -> Reasons:
        """The smallest draws stay."""
        draws = known["draw"].to_numpy()
        if len(draws) < self.num_samples:
            raise LabError(f"{self.num_samples} rows are asked for and only {len(draws)} are left; ask for fewer")
        left = np.ones(len(draws), dtype=bool)
        left[np.argsort(draws, kind="stable")[: self.num_samples]] = False
        return first_reason({"not drawn": left})


@dataclass(frozen=True, kw_only=True)
class Pack(Step):
    """Join rows to packs of at most `budget`: rows of one pack become neighbours, with its number in `pack`.

    A row's length is that of its `columns` in `unit` (a key of `LENGTHS`) and `extra` for what a template adds. Rows
    longer than the budget are dropped, and so are those of length 0; one with media, whose tokens only a model can
    count, is a `LabError` (training packs those itself). Packs do not cross shards, so that a pack is read
    in one piece: `pack` counts from 0 in each shard.
    """

    budget: Annotated[int, Field(ge=1)]
    unit: Annotated[str, one_of(LENGTHS, "unit")] = "characters"
    columns: Columns = ("prompt", "answer")
    extra: Annotated[int, Field(ge=0)] = 0
    use: ClassVar[str] = "pack"
    ends: ClassVar[bool] = True

    def judge(self, known: pa.Table) -> Reasons:
        """A row that fills a pack alone stays; none is cut short."""
        if any(shown := media_of(known)):
            id = next(id for id, found in zip(known["id"].to_pylist(), shown, strict=True) if found)
            raise LabError(f"row {id!r} holds media, whose tokens only a model can count; leave out the step pack")
        lengths, long = self._lengths(known), f"longer than the budget of {self.budget} {self.unit}"
        return first_reason({"nothing in it": lengths <= 0, long: lengths > self.budget})

    def arrange(self, kept: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """Rows by pack, in a pack as they stood."""
        if not kept.num_rows:
            return kept.append_column("pack", pa.array([], pa.int64())), {"packs": 0, "used": 0, "places": 0}
        lengths = self._lengths(kept)
        packs = pack_best_fit(lengths, self.budget)
        numbers = np.repeat(np.arange(len(packs)), np.diff(packs.starts))
        arranged = kept.take(packs.samples).append_column("pack", pa.array(numbers, pa.int64()))
        return arranged, {"packs": len(packs), "used": int(lengths.sum()), "places": len(packs) * self.budget}

    def _lengths(self, rows: pa.Table) -> Int[ndarray, " rows"]:
        return text_lengths(rows, self.columns, self.unit) + self.extra


@dataclass(frozen=True, kw_only=True)
class SampleFilterStep(Step):
    """Keep what a filter of samples keeps, a key of `SAMPLE_FILTERS`, at its `value`; models read and hear the rows.

    Of rows whose source begins with none of `sources` all stay; without `sources` every row is judged.
    """

    filter: str
    value: float | None = None
    sources: tuple[str, ...] = ()
    use: ClassVar[str] = "samples"
    whole_corpus: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._filter()

    def _filter(self) -> tuple[Callable[[Sequence[Sample]], Filtered], str]:
        from lab.training.sample_filters import filter_of, filters_state

        told = self.filter if self.value is None else f"{self.filter}={self.value}"
        return filter_of(told), filters_state(told)

    def identity(self) -> str:
        """The hashes of the models."""
        return self._filter()[1]

    def judge(self, known: pa.Table) -> Reasons:
        """The filter's reasons, over all rows of its sources at once."""
        rows = known.to_pylist()
        places = [at for at, row in enumerate(rows) if (row["source"] or "").startswith(self.sources or "")]
        if not places:
            there = ", ".join(sorted({str(row["source"]) for row in rows}))
            raise LabError(f"no row is of {', '.join(self.sources)}; the sources of rows are: {there}")
        reasons = np.full(len(rows), None, dtype=object)
        reasons[places] = self._filter()[0](list(samples_of((rows[at] for at in places), cache_dir()))).reasons
        return reasons


STEPS: Mapping[str, type[Step]] = {
    step.use: step
    for step in (
        NotEmpty,
        LengthBetween,
        ExactDuplicates,
        NearDuplicates,
        SemanticDuplicates,
        Quality,
        LossFilterStep,
        SampleFilterStep,
        RandomSample,
        Pack,
    )
}
