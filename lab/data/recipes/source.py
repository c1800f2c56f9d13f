"""What a source of a recipe is: parts that are read one beside the other, each as a stream of tables.

Every row gets an `id` (the source's own column, else made of the source's name and the row's place) and a `source` (its
own, else the source's name). All rows of a recipe have the same columns, or it is one sentence about the file that
differs: else it would show up hours later, in a step that cannot read it.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from lab.errors import LabError


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """What every kind of source is declared with; `columns` maps our names to the source's, None takes all as they are.

    A kind adds `parts`, `identity` (the hash or pinned version of a part) and `tables` (its rows as the source has
    them).
    """

    name: str
    licence: str
    columns: Mapping[str, str] = field(default_factory=dict)

    @abstractmethod
    def parts(self) -> list[str]:
        """Names of what can be read on its own, in order.

        Raises:
            LabError: there is nothing, or it cannot be reached.
        """

    @abstractmethod
    def identity(self, part: str) -> str:
        """What stands for the content of a part in the keys of the cache."""

    def told_licence(self) -> str:
        """What the card says."""
        return self.licence

    @abstractmethod
    def tables(self, part: str, skipped: Counter[str]) -> Iterator[pa.Table]:
        """The rows of a part, a batch at a time; what the source leaves out it counts in `skipped`, by reason."""

    def rows(
        self, number: int, schema: pa.Schema | None = None, skipped: Counter[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows of part `number`, from 0, with our columns; all of `schema`, else of the first batch.

        Raises:
            LabError: a column that was asked for is not there, or the batches differ.
        """
        part, first = self.parts()[number], 0
        for table in self.tables(part, Counter() if skipped is None else skipped):
            ours = self._ours(table, number, first, part)
            schema = schema or plain_schema(ours.schema)
            yield as_schema(ours, schema, f"source {self.name!r}: {part} (rows {first} to {first + len(table) - 1})")
            first += len(table)

    def schema(self, number: int) -> pa.Schema | None:
        """The columns of a part, from its first batch; None where it has no rows."""
        return next((table.schema for table in self.rows(number)), None)

    def _ours(self, table: pa.Table, number: int, first: int, part: str) -> pa.Table:
        columns = self.columns or {name: name for name in table.column_names}
        if missing := [theirs for theirs in columns.values() if theirs not in table.column_names]:
            raise LabError(
                f"source {self.name!r}: {part} has no column {missing[0]!r}; its columns are "
                f"{', '.join(table.column_names)}"
            )
        arrays = {ours: table[theirs] for ours, theirs in columns.items()}
        made = pa.array([f"{self.name}-{number}-{row:09d}" for row in range(first, first + len(table))])
        ids = arrays.pop("id", made).cast(pa.string())
        if ids.null_count:
            row = first + pc.index(pc.is_null(ids), True).as_py()
            raise LabError(
                f"source {self.name!r}: row {row} of {part} has no id; expected one in every row, or no column"
            )
        arrays.setdefault("source", pa.array([self.name] * len(table)))
        return pa.table({"id": ids, **arrays})


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without what does not belong to the rows: metadata, nullability, and the ways to store a string."""
    texts = (pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)

    def plain(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_dictionary(kind):
            return plain(kind.value_type)
        return pa.string() if any(is_text(kind) for is_text in texts) else kind

    return pa.schema([(field.name, plain(field.type)) for field in schema])


def as_schema(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """Bring rows to the schema of the rows before them; columns may stand in another order, and nothing else differs.

    Raises:
        LabError: as `check_schema`.
    """
    # A batch that happens to hold nothing but nulls says nothing about its column's type.
    unknown = {field.name for field in table.schema if pa.types.is_null(field.type)} & set(schema.names)
    found = pa.schema([schema.field(field.name) if field.name in unknown else field for field in table.schema])
    check_schema(plain_schema(found), schema, what)
    return table.select(schema.names).cast(schema).replace_schema_metadata(None)


def check_schema(found: pa.Schema, expected: pa.Schema, what: str) -> None:
    """Refuse other columns than the expected ones.

    Raises:
        LabError: a column is missing, too much, or of another type; `what` names the rows.
    """
    for name in [*expected.names, *found.names]:
        types = [schema.field(name).type if name in schema.names else None for schema in (found, expected)]
        if types[0] != types[1]:
            has = f"has column {name!r} of type {types[0]}" if types[0] is not None else f"has no column {name!r}"
            wanted = f"{types[1]} as in those before it" if types[1] is not None else "none, as in those before it"
            listed = ", ".join(f"{field.name} ({field.type})" for field in expected)
            raise LabError(f"{what} {has}, expected {wanted}; all rows of a recipe have the columns {listed}")
