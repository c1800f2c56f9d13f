"""The step of a recipe that keeps texts of some quality, by published rules.

Section 3 of the paper cleans its instruction data; by which rules is not found. They are `lab.data.filters.quality`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from lab.data.filters.filtering import Filtered
from lab.data.filters.quality import QUALITY_RULES, quality
from lab.data.recipes.step import Kind, RowStep
from lab.errors import LabError, choose


@dataclass(frozen=True, kw_only=True)
class Quality(RowStep):
    """Drop rows whose texts in `columns` break one of `rules`, keys of `QUALITY_RULES`, at their sources' limits."""

    rules: tuple[str, ...]
    columns: tuple[str, ...] = ("answer",)
    use: ClassVar[str] = "quality"

    def __post_init__(self) -> None:
        if not self.rules:
            raise LabError(f"step quality has no rules; choose some of: {', '.join(QUALITY_RULES)}")
        for rule in self.rules:
            choose(QUALITY_RULES, rule, "quality rule")

    def needs(self) -> Mapping[str, Kind]:
        """The columns that are judged."""
        return dict.fromkeys(self.columns, "text")

    def judge(self, shard: pa.Table) -> Filtered:
        """All columns' texts as one; the first rule that is broken is the reason."""
        parts = [pc.fill_null(shard[name], "") for name in self.columns]
        texts = pc.binary_join_element_wise(*parts, "\n").to_pylist()
        return quality(shard["id"].to_pylist(), texts, rules=self.rules)
