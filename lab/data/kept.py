"""Values kept on disk, each made once: a run that stops goes on, and a second one makes nothing twice.

What makes values (a recogniser, a language model, an endpoint, a sentence encoder) has a folder of its own in the
cache, known by its weights and its way of decoding; several processes may share it.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TypeVar, cast

import diskcache

from lab.errors import LabError
from lab.paths import cache_dir

FORMAT_VERSION = 3
T = TypeVar("T", str, bytes)


class Kept:
    """What one maker has made: what is on disk is read, the rest is made and kept, each value as it comes.

    `kind` is the folder in the cache, `maker` all that a value depends on but its key, `what` is kept, for messages.
    Where two processes make one value at the same moment, the first stays and both return it.
    """

    def __init__(self, kind: str, *maker: str, what: str) -> None:
        identity = json.dumps([FORMAT_VERSION, *maker])
        self.folder = cache_dir() / kind / hashlib.sha256(identity.encode()).hexdigest()[:32]
        self._what = what

    def values(self, keys: Sequence[bytes], make: Callable[[list[int]], Iterable[tuple[int, T]]]) -> list[T]:
        """The value under each key, in their order; an empty one is kept as any.

        `keys` are SHA-256 of what the values are made from; a key that stands twice is made once. `make` is given the
        places in `keys` of what is missing, and gives each with its value, in any order.

        Raises:
            LabError: the folder cannot be read or written; or as `make`, after what it had given was kept.
        """
        with self._disk():
            read = ((key, self._store.get(key, retry=True)) for key in set(keys))
            found: dict[bytes, T] = {key: value for key, value in read if value is not None}
        missing = sorted({key: place for place, key in reversed([*enumerate(keys)]) if key not in found}.values())
        for place, value in make(missing) if missing else ():
            key = keys[place]
            with self._disk():
                new = self._store.add(key, value, retry=True)
                found[key] = value if new else cast(T, self._store.get(key, retry=True))
        return [found[key] for key in keys]

    @cached_property
    def _store(self) -> diskcache.Cache:
        return diskcache.Cache(str(self.folder), eviction_policy="none")  # else it drops the oldest above 1 GB

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Nothing of a maker runs in here, so all errors are the disk's."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise LabError(
                f"{self._what} cannot be kept in {self.folder} ({error}); free some disk, or remove the folder if it "
                "is damaged"
            ) from error
