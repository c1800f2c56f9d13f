"""What an encoder sees in pictures and frames, computed once: a file of features, or of pixels where it is trained.

Axes: `views` (of each frame the whole, then its tiles), `rows`, `columns` and `features` of the encoder's grid. A store
is `cache_dir()/views/NAME-KEY/`; samples lie one behind the other in the order of their ids.
"""

import errno
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float16, UInt8
from numpy import ndarray

from lab.errors import LabError
from lab.paths import cache_dir, make_folder

FORMAT_VERSION = 1
_VIEWS_AT_ONCE = 256


@dataclass(frozen=True)
class SeenFrames:
    """The views of a sample's frames, all frames alike: `size` is a frame's height and width, `grid` its tiles'."""

    pixels: UInt8[ndarray, "views height width 3"]
    seconds: tuple[float, ...]
    size: tuple[int, int]
    grid: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class StoredViews:
    """As `SeenFrames`, with what was kept of the views."""

    views: Float16[ndarray, "views rows columns features"] | UInt8[ndarray, "views height width 3"]
    seconds: tuple[float, ...]
    size: tuple[int, int]
    grid: tuple[int, int]


Encode = Callable[[UInt8[ndarray, "views height width 3"]], Float[ndarray, "views rows columns features"]]


class ViewStore:
    """A store, opened as a memory map."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self._offsets = np.load(folder / "offsets.npy")
        shape = (int(self._offsets[-1]), *self.manifest["shape"])
        # Nothing cannot be mapped into memory.
        self._views = (
            np.memmap(folder / "views.bin", dtype=self.manifest["dtype"], mode="r", shape=shape)
            if shape[0]
            else np.zeros(shape, dtype=self.manifest["dtype"])
        )
        self._index = {name: i for i, name in enumerate(self.manifest["ids"])}

    def __getitem__(self, name: str) -> StoredViews:
        i = self._index[name]
        seconds, size, grid = self.manifest["samples"][i]
        views = self._views[self._offsets[i] : self._offsets[i + 1]]
        return StoredViews(views, tuple(seconds), (size[0], size[1]), (grid[0], grid[1]))

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """Rows, columns and features of a view, or its height, its width and 3."""
        rows, columns, features = self.manifest["shape"]
        return rows, columns, features

    @property
    def sha256(self) -> str:
        """Of the stored values."""
        return str(self.manifest["sha256"])


def store_views(
    name: str,
    ids: Sequence[str],
    see: Callable[[int], SeenFrames],
    encode: Encode | None,
    *,
    key: str,
    progress: Callable[[int, int], None] | None = None,
) -> ViewStore:
    """Open the views of samples, rendering and encoding them first where they are not there.

    Args:
        name: begins the folder's name.
        ids: of the samples, all different; with `key` they decide what is stored.
        see: the views of the sample at a place in `ids`.
        encode: the frozen encoder; None keeps the pixels for one that trains.
        key: everything that the views depend on but the ids, the encoder included.
        progress: told how many samples of how many are done.

    Raises:
        LabError: no samples, an id twice, or a full disk.
    """
    if not ids or len(set(ids)) < len(ids):
        raise LabError(f"views of {name!r} need samples with ids of their own; got {len(ids)}, {len(set(ids))} of them")
    identity = json.dumps([FORMAT_VERSION, key, hashlib.sha256("\n".join(ids).encode()).hexdigest()])
    stem = name.replace(":", "_").replace("/", "_")
    folder = cache_dir() / "views" / f"{stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    try:
        make_folder(folder, lambda made: _write(made, ids, _in_batches(len(ids), see), encode, key, progress))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise LabError(f"no space is left for the views of {name!r} in {folder.parent}") from error
        raise
    return ViewStore(folder)


def _in_batches(count: int, see: Callable[[int], SeenFrames]) -> Iterator[list[SeenFrames]]:
    batch: list[SeenFrames] = []
    for place in range(count):
        batch.append(see(place))
        if sum(len(seen.pixels) for seen in batch) >= _VIEWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _write(
    folder: Path,
    ids: Sequence[str],
    batches: Iterator[list[SeenFrames]],
    encode: Encode | None,
    key: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    samples: list[tuple[tuple[float, ...], tuple[int, int], tuple[int, int]]] = []
    counts: list[int] = []
    shape: tuple[int, ...] = ()
    dtype = "<f2" if encode else "|u1"
    digest = hashlib.sha256()
    # Plain writes: on a full disk a writable memory map kills the process.
    with (folder / "views.bin").open("wb") as file:
        for batch in batches:
            pixels = np.concatenate([seen.pixels for seen in batch])
            if not len(pixels) and not shape:
                # Where nothing is seen of any sample, a black view tells what views are like.
                shape = (encode(np.zeros((1, *pixels.shape[1:]), np.uint8)) if encode else pixels).shape[1:]
            if len(pixels):
                views = (encode(pixels) if encode else pixels).astype(dtype)
                shape = views.shape[1:]
                file.write(views.tobytes())
                digest.update(views.tobytes())
            samples += [(seen.seconds, seen.size, seen.grid) for seen in batch]
            counts += [len(seen.pixels) for seen in batch]
            if progress:
                progress(len(samples), len(ids))
    table = io.BytesIO()
    np.save(table, np.concatenate([[0], np.cumsum(counts)]))
    (folder / "offsets.npy").write_bytes(table.getvalue())
    manifest = {"key": key, "ids": list(ids), "shape": shape, "dtype": dtype, "samples": samples}
    manifest["sha256"] = digest.hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest) + "\n", encoding="utf-8")


def view_statistics(
    store: ViewStore, *, max_views: int = 2000
) -> tuple[Float[ndarray, " features"], Float[ndarray, " features"]]:
    """Mean and standard deviation of each channel over `max_views` views, evenly drawn from the store.

    Of a store in which nothing is seen they are 0 and 1.
    """
    views = store._views
    if not len(views):
        return np.zeros(views.shape[-1], dtype=np.float32), np.ones(views.shape[-1], dtype=np.float32)
    chosen = np.unique(np.linspace(0, len(views) - 1, min(max_views, len(views))).astype(int))
    values = np.asarray(views[chosen], dtype=np.float64).reshape(-1, views.shape[-1])
    return values.mean(0).astype(np.float32), np.sqrt(np.maximum(values.var(0), 1e-8)).astype(np.float32)
