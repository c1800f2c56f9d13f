"""Texts kept on disk by the SHA-256 of what they answer, in one SQLite file that several processes may share."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock

from lab.errors import LabError

# Another process holds the file for a few lines only.
_WAIT_SECONDS = 600
_TABLE = "CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID"


class KeptTexts:
    """Where two processes keep a text under one key at the same moment, the first stays and both read it.

    Args:
        path: of the file, made with its folder when it is first needed.
        what: is kept, for messages.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        self.path, self._what = path, what

    def read(self, keys: Iterable[bytes]) -> dict[bytes, str]:
        """Of these texts, those that are there.

        Raises:
            LabError: the file cannot be read or made.
        """
        with self._opened() as store:
            return _read(store, keys)

    def keep(self, texts: Sequence[tuple[bytes, str]]) -> dict[bytes, str]:
        """Keep texts, all or none of them; returns what stands under their keys.

        Raises:
            LabError: the file cannot be written.
        """
        with self._opened() as store:
            with store:
                store.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?)", texts)
            return _read(store, [key for key, _ in texts])

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The file, closed again behind; nothing of a model runs in here, so all errors are the file's."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite does not wait for who turns the journal over at the same moment.
            with FileLock(f"{self.path}.lock"):
                store = sqlite3.connect(self.path, timeout=_WAIT_SECONDS)
                try:
                    store.execute("PRAGMA journal_mode = WAL")
                    store.execute(_TABLE)
                except sqlite3.Error:
                    store.close()
                    raise
            with closing(store):
                yield store
        except (OSError, sqlite3.Error) as error:
            raise LabError(
                f"{self._what} cannot be kept in {self.path} ({error}); free some disk, or remove the file if it is "
                "damaged"
            ) from error


def _read(store: sqlite3.Connection, keys: Iterable[bytes]) -> dict[bytes, str]:
    found = {}
    for key in dict.fromkeys(keys):
        line = store.execute("SELECT text FROM texts WHERE key = ?", (key,)).fetchone()
        if line is not None:
            found[key] = line[0]
    return found
