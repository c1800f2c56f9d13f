"""Hashes of rows and of texts: by what a recipe's step knows its input again, and a duplicate without its text."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import UInt64
from numpy import ndarray


def hash_rows(table: pa.Table) -> str:
    """SHA-256 over the columns' names, types and values, in their order; how the rows are cut into chunks is no matter.

    The Parquet file's bytes would change with the version that wrote it.
    """
    # `take` copies: no offset into a larger buffer and no spare byte is left that the stream would carry.
    whole = table.replace_schema_metadata(None).take(np.arange(table.num_rows)).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, whole.schema) as stream:
        stream.write_table(whole)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def hash_all(hashes: Iterable[str]) -> str:
    """One hash of shards' hashes, in their order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def hash_texts(table: pa.Table, columns: Sequence[str], *, seed: int = 0) -> UInt64[ndarray, "rows 2"]:
    """128 bits a row over the texts of `columns`; null and empty count as the same.

    Two of 1,000,000,000 different rows agree by chance with a probability of 1 in 10^21.
    """
    key = seed.to_bytes(8, "little", signed=True)
    texts = [pc.fill_null(table[name].cast(pa.string()), "").to_pylist() for name in columns]
    digests = bytearray()
    for row in zip(*texts, strict=True):
        # A text that holds the separator cannot be mistaken for two, since each is led by its length.
        joined = "".join(f"{len(text)}:{text}" for text in row)
        digests += hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=16, key=key).digest()
    return np.frombuffer(bytes(digests), dtype="<u8").reshape(-1, 2)
