"""What frozen encoders make of sounds, pictures and video, computed once and kept: values in files, memory-mapped.

Section 3.1 of the paper, for sound. Axes: `rows` (of a sound its encoder frames; of a picture or video the views, of
each frame the whole and then its tiles), `features` (of a row: the encoder's width, with the grid of a view before it).
A store is `cache_dir()/features/NAME-KEY/`, in half precision; of an encoder that is trained, pixels are kept.

What an encoder gives of a part is rounded otherwise in other company: of Whisper tiny.en on a CPU up to 1.3% of the
values differ in half precision. So a sound is encoded alone, and a store of sounds or pixels holds parts by their ids:
whoever asks for a list computes what is missing, in a folder of its own in the store. A second of sound is work enough
for a processor, a small picture alone is not. So features of what is seen are computed in batches, and their store is
of a whole list, which shares nothing with others.
"""

import errno
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from jaxtyping import Float
from numpy import ndarray

from lab.errors import LabError, TryAgain
from lab.paths import cache_dir, make_folder

FORMAT_VERSION = 2
_ROWS_AT_ONCE = 4096
_VIEWS_TOGETHER = 256


@dataclass(frozen=True)
class Rows:
    """What was read of a part, or is kept of it.

    Of frames also when each is shown, all of them of one `size` (height and width), cut into one `grid` of tiles.
    """

    values: ndarray
    seconds: tuple[float, ...] = ()
    size: tuple[int, int] = (0, 0)
    grid: tuple[int, int] = (1, 1)


class FeatureStore:
    """What a store keeps of a list of parts, as memory maps; how many rows a part has is known without reading them.

    `problems` are parts of the list that could not be read, of which nothing is kept, and why, until `folder` is
    deleted; `missing` are those that nobody has asked for yet. What else is kept there changes nothing.
    """

    def __init__(self, folder: Path, ids: Sequence[str]) -> None:
        self.folder = folder
        self.folders: list[Path] = []
        """Those in it that hold the list."""
        self.row_shape: tuple[int, ...] = ()
        """Of one row, the encoder's width last; of pixels height, width and 3."""
        found: dict[str, tuple[ndarray, Any]] = {}
        problems: dict[str, str] = {}
        for path in sorted(folder.glob("*/manifest.json")):
            manifest = json.loads(path.read_text(encoding="utf-8"))
            parts = manifest["parts"]
            if not any(name in parts or name in manifest["problems"] for name in ids):
                continue
            self.folders.append(path.parent)
            problems |= manifest["problems"]
            self.row_shape = self.row_shape or tuple(manifest["shape"])
            shape = (sum(count for _, count, *_ in parts.values()), *manifest["shape"])
            # Nothing cannot be mapped into memory.
            values = (
                np.memmap(path.with_name("values.bin"), dtype=manifest["dtype"], mode="r", shape=shape)
                if shape[0]
                else np.zeros(shape, dtype=manifest["dtype"])
            )
            found |= {name: (values, told) for name, told in parts.items()}
        self._parts = {name: found[name] for name in ids if name in found}
        self.problems = {name: problems[name] for name in ids if name in problems}
        self.missing = [name for name in ids if name not in self._parts and name not in self.problems]

    def __getitem__(self, name: str) -> Rows:
        """What is kept of a part; the values are a view of the file, read-only."""
        values, (start, count, seconds, size, grid, _) = self._parts[name]
        return Rows(values[start : start + count], tuple(seconds), (size[0], size[1]), (grid[0], grid[1]))

    def num_rows(self, name: str) -> int:
        """Encoder frames, or views."""
        return int(self._parts[name][1][1])

    @property
    def sha256(self) -> str:
        """Of the list's values, in its order."""
        return hashlib.sha256("".join(told[-1] for _, told in self._parts.values()).encode()).hexdigest()

    def mean_and_std(
        self, *, max_rows: int, spread: bool = False
    ) -> tuple[Float[ndarray, " features"], Float[ndarray, " features"]]:
        """Mean and standard deviation of each channel.

        Over the first parts that have `max_rows` together; where they are `spread`, over so many at most, taken evenly
        from the whole list.
        """
        names = list(self._parts)
        counts = np.array([self.num_rows(name) for name in names])
        ends = np.cumsum(counts)
        if spread:
            places = np.unique(np.linspace(0, ends[-1] - 1, min(max_rows, ends[-1])).astype(int))
        else:
            last = min(int(np.searchsorted(ends, max_rows)), len(ends) - 1)
            places = np.arange(ends[last])
        of = np.searchsorted(ends, places, side="right")
        rows = places - (ends - counts)[of]
        width = self.row_shape[-1]
        count, total, squares = 0, np.zeros(width), np.zeros(width)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            chunk = slice(start, start + _ROWS_AT_ONCE)
            own = [self[names[part]].values[rows[chunk][of[chunk] == part]] for part in np.unique(of[chunk])]
            values = np.concatenate(own).reshape(-1, width).astype(np.float64)
            count, total, squares = count + len(values), total + values.sum(0), squares + (values**2).sum(0)
        if not count:
            return np.zeros(width, dtype=np.float32), np.ones(width, dtype=np.float32)
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
        return mean.astype(np.float32), std.astype(np.float32)


def store_features(
    name: str,
    ids: Sequence[str],
    read: Callable[[int], Rows],
    *,
    key: str,
    encode: Callable[[ndarray], ndarray] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureStore:
    """Open what is kept of parts of samples, making first what is not there.

    A part's id and `key`, which holds everything else that its values depend on, the encoder included, decide what is
    kept. `read` gives what is kept of the part at a place in `ids`. With `encode`, it gives views, of several parts
    encoded together; then the whole list decides. `progress` is told how many of the missing parts are done. A part for
    which `read` raises a `LabError` is among the store's `problems`.

    Whoever asks at the same moment, in another process too, waits for the first. What is made is there whole or not at
    all.

    Raises:
        TryAgain: a part cannot be read now; nothing is kept.
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
    identity = json.dumps([FORMAT_VERSION, key, *([_sha256(ids)] if encode else [])])
    stem = name.replace(":", "_").replace("/", "_")
    folder = cache_dir() / "features" / f"{stem}-{_sha256([identity])[:16]}"
    if not (store := FeatureStore(folder, ids)).missing:
        return store
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            missing = set(FeatureStore(folder, ids).missing)
            places = [place for place, one in enumerate(ids) if one in missing]
            if places:
                made = folder / _sha256([ids[place] for place in places])[:16]
                make_folder(made, lambda into: _write(into, ids, places, read, encode, key, progress))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise LabError(f"no space is left for the features of {name!r} in {folder.parent}") from error
        raise
    return FeatureStore(folder, ids)


def _sha256(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _write(
    folder: Path,
    ids: Sequence[str],
    places: Sequence[int],
    read: Callable[[int], Rows],
    encode: Callable[[ndarray], ndarray] | None,
    key: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    problems: dict[str, str] = {}

    def batches() -> Iterator[dict[str, Rows]]:
        batch: dict[str, Rows] = {}
        for place in places:
            try:
                batch[ids[place]] = read(place)
            except TryAgain:
                raise
            except LabError as error:
                problems[ids[place]] = str(error)
                continue
            if not encode or sum(len(rows.values) for rows in batch.values()) >= _VIEWS_TOGETHER:
                yield batch
                batch = {}
        if batch:
            yield batch
        if len(problems) == len(ids):
            raise LabError(next(iter(problems.values())))

    parts: dict[str, Any] = {}
    shape: tuple[int, ...] = ()
    dtype = "<f2"
    written = 0
    # Plain writes: on a full disk a writable memory map kills the process.
    with (folder / "values.bin").open("wb") as file:
        for batch in batches():
            given = [rows.values for rows in batch.values()]
            for (name, rows), values in zip(batch.items(), _encoded(given, encode), strict=True):
                kept = values if values.dtype == np.uint8 else values.astype("<f2")
                shape, dtype = kept.shape[1:], kept.dtype.str
                file.write(kept.tobytes())
                digest = hashlib.sha256(kept.tobytes()).hexdigest()
                parts[name] = (written, len(kept), rows.seconds, rows.size, rows.grid, digest)
                written += len(kept)
            if progress:
                progress(len(parts) + len(problems), len(places))
    manifest = {"key": key, "shape": shape, "dtype": dtype, "parts": parts, "problems": problems}
    (folder / "manifest.json").write_text(json.dumps(manifest) + "\n", encoding="utf-8")


def _encoded(given: Sequence[ndarray], encode: Callable[[ndarray], ndarray] | None) -> Sequence[ndarray]:
    if encode is None:
        return given
    views = np.concatenate(given)
    if not len(views):
        # Where nothing is seen of any part, a black view tells what views are like.
        blank = encode(np.zeros((1, *views.shape[1:]), dtype=views.dtype))
        return [blank[:0] for _ in given]
    return np.split(encode(views), np.cumsum([len(one) for one in given])[:-1])
