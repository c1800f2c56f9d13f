"""The columns of a recipe's rows: the same in every shard, or one sentence about the file that differs.

Section 3 of the paper mixes samples of many sources; a column that changes its type half-way would otherwise show up
hours later, in a step that cannot read it.
"""

import pyarrow as pa

from lab.errors import LabError


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
        LabError: a column is missing, too much, or of another type; `what` names the rows.
    """
    # A batch that happens to hold nothing but nulls says nothing about its column's type.
    unknown = {field.name for field in table.schema if pa.types.is_null(field.type)} & set(schema.names)
    found = pa.schema([schema.field(field.name) if field.name in unknown else field for field in table.schema])
    check_schema(plain_schema(found), schema, what)
    try:
        return table.select(schema.names).cast(schema).replace_schema_metadata(None)
    except pa.ArrowInvalid as error:
        raise LabError(f"{what} cannot be brought to the columns {_listed(schema)}: {error}") from error


def check_schema(found: pa.Schema, expected: pa.Schema, what: str) -> None:
    """Refuse other columns than the expected ones.

    Raises:
        LabError: as `as_schema`.
    """
    for name in [*expected.names, *found.names]:
        types = [schema.field(name).type if name in schema.names else None for schema in (found, expected)]
        if types[0] != types[1]:
            has = f"has column {name!r} of type {types[0]}" if types[0] is not None else f"has no column {name!r}"
            wanted = f"{types[1]} as in those before it" if types[1] is not None else "none, as in those before it"
            raise LabError(
                f"{what} {has}, expected {wanted}; all rows of a recipe have the columns {_listed(expected)}"
            )


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
