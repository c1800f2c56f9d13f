"""Generated answers kept on disk, each made once: a run that stops goes on, and nothing is generated twice.

An answer is known by its sample and by the conversation that it ends; each model, known by its key (weights, decoding,
length), has a file of its own in the cache. As `lab.evaluation.kept_transcripts` for what recognisers hear.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from filelock import FileLock

from lab.errors import LabError
from lab.evaluation.benchmarks.benchmark import Progress
from lab.evaluation.benchmarks.conversations import Conversation, Refused, TextModel, identity_of
from lab.paths import cache_dir

FORMAT_VERSION = 1
# Another process holds the file for one answer's line only.
_WAIT_SECONDS = 600
_TABLE = "CREATE TABLE IF NOT EXISTS answers (asked BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID"


class KeptAnswers:
    """A model's replies: what the cache has is read, the rest is asked for and kept, one by one as it comes.

    Several processes may share the file. Where two generate one answer at the same moment, the first stays and both
    return it. A refusal is returned and not kept.

    Args:
        model: makes what is not there; its key is asked once.
        purpose: what the replies are ("answers", "verdicts of yes_no 1"), part of their identity.
    """

    def __init__(self, model: TextModel, *, purpose: str) -> None:
        identity = json.dumps([FORMAT_VERSION, purpose, model.key])
        self.path = cache_dir() / "answers" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.sqlite"
        self.num_generated = 0
        """Replies that were not in the cache, since this was made."""
        self._model = model

    def replies(
        self, ids: Sequence[str], conversations: Sequence[Conversation], progress: Progress | None = None
    ) -> list[str | Refused]:
        """The reply to each sample's conversation, in their order; an empty one is kept as any.

        Raises:
            LabError: as the model, after what it had replied was kept; or a cache that cannot be read or written.
        """
        keys = [_asked_sha256(key, said) for key, said in zip(ids, conversations, strict=True)]
        with self._opened() as store:
            found: dict[bytes, str | Refused] = {**_read(store, keys)}
        # A key that stands twice is asked for once.
        missing = list({key: index for index, key in reversed(list(enumerate(keys))) if key not in found}.values())[
            ::-1
        ]
        done = len(keys) - len(missing)
        if progress is not None:
            progress(done, len(keys))
        for place, reply in self._model.reply([conversations[index] for index in missing]) if missing else ():
            key = keys[missing[place]]
            found[key] = self._kept(key, reply) if isinstance(reply, str) else reply
            done += 1
            if progress is not None:
                progress(done, len(keys))
        return [found[key] for key in keys]

    def _kept(self, key: bytes, reply: str) -> str:
        self.num_generated += 1
        with self._opened() as store:
            with store:
                store.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, reply))
            return _read(store, [key])[key]

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The file, closed again behind; nothing of the model's runs in here, so all errors are the file's."""
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
                f"answers cannot be kept in {self.path} ({error}); free some disk, or remove the file if it is damaged"
            ) from error


def _asked_sha256(sample: str, conversation: Conversation) -> bytes:
    return hashlib.sha256(json.dumps([sample, identity_of(conversation)]).encode()).digest()


def _read(store: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, str]:
    """Of these answers, those that are there."""
    found = {}
    for key in dict.fromkeys(keys):
        line = store.execute("SELECT text FROM answers WHERE asked = ?", (key,)).fetchone()
        if line is not None:
            found[key] = line[0]
    return found
