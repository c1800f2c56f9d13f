"""What frozen encoders make of sounds, pictures and video, computed once: the values in one file, memory-mapped.

Section 3.1 of the paper, for sound. Axes: `rows` (of a sound its encoder frames; of a picture or video the views, of
each frame the whole and then its tiles), `features` (of a row: the encoder's width, with the grid of a view before it).
A store is `cache_dir()/features/NAME-KEY/`, in half precision; of an encoder that is trained, pixels are kept.

A store is of a whole list of parts, and lists share nothing. What an encoder gives of a part is rounded otherwise in
other company (of Whisper tiny.en on a CPU up to 1.3% of the values differ in half precision), so a part that another
cell had encoded would make a cell's result depend on which of the two ran first.
"""

import errno
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from lab.errors import LabError
from lab.paths import cache_dir, make_folder

FORMAT_VERSION = 1
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Rows:
    """What was read of a part, or is kept of it.

    Of frames also when each is shown, all of them of one `size` (height and width), cut into one `grid` of tiles.
    """

    values: ndarray
    seconds: tuple[float, ...] = ()
    size: tuple[int, int] = (0, 0)
    grid: tuple[int, int] = (1, 1)


Encode = Callable[[list[ndarray]], Sequence[ndarray]]


class FeatureStore:
    """A store, opened as a memory map; how many rows a part has is known without reading them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self._starts, self._counts = np.load(folder / "rows.npy")
        shape = (int(self._counts.sum()), *self.manifest["shape"])
        # Nothing cannot be mapped into memory.
        self._values = (
            np.memmap(folder / "values.bin", dtype=self.manifest["dtype"], mode="r", shape=shape)
            if shape[0]
            else np.zeros(shape, dtype=self.manifest["dtype"])
        )
        self._index = {name: i for i, name in enumerate(self.manifest["ids"])}

    def __getitem__(self, name: str) -> Rows:
        """What is kept of a part; the values are a view of the file, read-only."""
        i = self._index[name]
        seconds, size, grid = self.manifest["frames"][i]
        values = self._values[self._starts[i] : self._starts[i] + self._counts[i]]
        return Rows(values, tuple(seconds), (size[0], size[1]), (grid[0], grid[1]))

    def num_rows(self, name: str) -> int:
        """Encoder frames, or views."""
        return int(self._counts[self._index[name]])

    @property
    def problems(self) -> dict[str, str]:
        """Parts that could not be read, of which nothing is kept, and why; until the store is made anew."""
        return dict(self.manifest.get("problems", {}))

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of one row, the encoder's width last; of pixels height, width and 3."""
        return tuple(self.manifest["shape"])

    @property
    def sha256(self) -> str:
        """Of the stored values."""
        return str(self.manifest["sha256"])

    def mean_and_std(
        self, *, max_rows: int, spread: bool = False
    ) -> tuple[Float[ndarray, " features"], Float[ndarray, " features"]]:
        """Mean and standard deviation of each channel.

        Over the first parts that have `max_rows` together; where they are `spread`, over so many at most, taken evenly
        from the whole store.
        """
        ends = np.cumsum(self._counts)
        if spread:
            places = np.unique(np.linspace(0, ends[-1] - 1, min(max_rows, ends[-1])).astype(int))
        else:
            last = min(int(np.searchsorted(ends, max_rows)), len(ends) - 1)
            places = np.arange(ends[last])
        of = np.searchsorted(ends, places, side="right")
        rows = self._starts[of] + places - (ends - self._counts)[of]
        width = self.row_shape[-1]
        count, total, squares = 0, np.zeros(width), np.zeros(width)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            values = self._values[rows[start : start + _ROWS_AT_ONCE]].reshape(-1, width).astype(np.float64)
            count, total, squares = count + len(values), total + values.sum(0), squares + (values**2).sum(0)
        if not count:
            return np.zeros(width, dtype=np.float32), np.ones(width, dtype=np.float32)
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
        return mean.astype(np.float32), std.astype(np.float32)


def joined(encode: Callable[[ndarray], ndarray]) -> Encode:
    """An encoder of many views at once, given those of several parts."""

    def encode_parts(parts: list[ndarray]) -> Sequence[ndarray]:
        return np.split(encode(np.concatenate(parts)), np.cumsum([len(part) for part in parts])[:-1])

    return encode_parts


def store_features(
    name: str,
    ids: Sequence[str],
    read: Callable[[int], Rows],
    encode: Encode | None,
    *,
    key: str,
    order: Sequence[int] | None = None,
    batch_size: int = 512,
    size_of: Callable[[ndarray], int] = lambda values: 1,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureStore:
    """Open what is kept of parts of samples, reading and encoding them first where that is not there.

    `ids` of the parts and `key`, which holds everything else that the values depend on, the encoder included, decide
    what is stored. `read` gives the part at a place in `ids`: a waveform, or views of frames; `encode` is the frozen
    encoder, None keeps what was read, for one that trains. Places are encoded in `order` (by length, so that a batch
    wastes little), together as many as have a `batch_size` in the unit of `size_of`. `progress` is told how many parts
    of how many are done. A part for which `read` raises a `LabError` is among the store's `problems`.

    Raises:
        LabError: no parts, none that can be read, an id twice, or a full disk.
    """
    if not ids:
        raise LabError(f"features of {name!r} are of no part; expected at least one")
    if len(set(ids)) < len(ids):
        twice = next(one for one, times in Counter(ids).items() if times > 1)
        raise LabError(
            f"features of {name!r} are kept by id, and {twice!r} is the id of more than one part "
            f"({len(set(ids))} different ones of {len(ids)}); give every sample an id of its own"
        )
    identity = json.dumps([FORMAT_VERSION, key, hashlib.sha256("\n".join(ids).encode()).hexdigest()])
    stem = name.replace(":", "_").replace("/", "_")
    folder = cache_dir() / "features" / f"{stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    problems: dict[str, str] = {}

    def batches() -> Iterator[list[tuple[int, Rows]]]:
        batch: list[tuple[int, Rows]] = []
        for place in range(len(ids)) if order is None else order:
            try:
                batch.append((place, read(place)))
            except LabError as error:
                problems[ids[place]] = str(error)
                continue
            if sum(size_of(rows.values) for _, rows in batch) >= batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
        if len(problems) == len(ids):
            raise LabError(next(iter(problems.values())))

    try:
        make_folder(folder, lambda made: _write(made, ids, batches(), problems, encode, key, progress))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise LabError(f"no space is left for the features of {name!r} in {folder.parent}") from error
        raise
    return FeatureStore(folder)


def _write(
    folder: Path,
    ids: Sequence[str],
    batches: Iterator[list[tuple[int, Rows]]],
    problems: dict[str, str],
    encode: Encode | None,
    key: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    starts, counts = np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=np.int64)
    frames: list[Any] = [None] * len(ids)
    shape: tuple[int, ...] = ()
    dtype = "<f2" if encode else "|u1"
    digest = hashlib.sha256()
    written = done = 0
    # Plain writes: on a full disk a writable memory map kills the process.
    with (folder / "values.bin").open("wb") as file:
        for batch in batches:
            read = [rows.values for _, rows in batch]
            if not any(len(values) for values in read):
                # Where nothing is seen of any part, a black view tells what views are like.
                blank = np.zeros((1, *read[0].shape[1:]), dtype=read[0].dtype)
                shape = shape or (encode([blank])[0] if encode else blank).shape[1:]
                encoded: Sequence[ndarray] = [np.zeros((0, *shape)) for _ in read]
            else:
                encoded = encode(read) if encode else read
            for (place, rows), values in zip(batch, encoded, strict=True):
                kept = values.astype(dtype)
                shape = kept.shape[1:]
                file.write(kept.tobytes())
                digest.update(kept.tobytes())
                starts[place], counts[place] = written, len(kept)
                frames[place] = (rows.seconds, rows.size, rows.grid)
                written += len(kept)
            done += len(batch)
            if progress:
                progress(done + len(problems), len(ids))
    table = io.BytesIO()  # numpy itself does not say that a disk is full
    np.save(table, np.stack([starts, counts]))
    (folder / "rows.npy").write_bytes(table.getvalue())
    manifest: dict[str, Any] = {"key": key, "ids": list(ids), "shape": shape, "dtype": dtype, "frames": frames}
    manifest |= {"sha256": digest.hexdigest(), "problems": problems}
    (folder / "manifest.json").write_text(json.dumps(manifest) + "\n", encoding="utf-8")
