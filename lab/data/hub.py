"""Speech corpora of the Hugging Face hub, or folders of the same form, streamed through `datasets`.

Name: `hub:DATASET[:CONFIG[:SPLIT]]`, the split one of the data set's own; without it all splits are read. Columns are
found among the lists below, or named. What is known of the data sets that the paper and its peers use:

| data set | name here | text column | speaker column |
|---|---|---|---|
| LibriSpeech | `hub:openslr/librispeech_asr:clean` | `text` | `speaker_id` |
| FLEURS | `hub:google/fleurs:en_us`, `hub:google/fleurs:cmn_hans_cn` | `transcription` | none |
| AISHELL-1 | `hub:AISHELL/AISHELL-1`, or a copy of it in Parquet | `text` | `speaker` |
| WenetSpeech | `hub:wenet-e2e/wenetspeech` (gated; ask for access first) | `text` | none |
| KeSpeech | `hub:TwinkStart/KeSpeech` (a copy; the original is by application) | `text` | `speaker` |

The hub's copies change; where columns have other names, give `text_column`, `audio_column`, `speaker_column`.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from lab.data.speech.audio import read_audio
from lab.data.speech.recordings import Reading, Recording
from lab.data.splits import Split
from lab.errors import LabError

AUDIO_COLUMNS = ("audio", "speech", "wav", "file")
TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript", "normalized_text", "raw_transcription", "Text")
SPEAKER_COLUMNS = ("speaker_id", "speaker", "client_id", "spk_id", "Speaker")
ID_COLUMNS = ("id", "utt_id", "segment_id", "file_name", "path")
_OWN_SPLITS: dict[str, Split] = {"train": "train", "dev": "dev", "valid": "dev", "eval": "test", "test": "test"}


def read(
    *,
    dataset: str,
    limit: int | None = None,
    language: str = "en",
    text_column: str | None = None,
    audio_column: str | None = None,
    speaker_column: str | None = None,
    revision: str | None = None,
) -> Reading:
    """Stream a data set; at most `limit` utterances of each split, `revision` pins a commit of the hub.

    Its own splits hold (`validation` is dev, all that begins with `test` is test); a data set without splits is
    split by sentence.

    Raises:
        LabError: the data set cannot be opened, has no such split or column, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise LabError(f"limit is {limit}, expected at least 1")
    name, config, only = parse_name(dataset)
    splits = open_streams(name, config, revision)
    if only is not None and only not in splits:
        raise LabError(f"data set {name!r} has no split {only!r}; choose one of: {', '.join(map(str, splits))}")
    chosen = {split: stream for split, stream in splits.items() if only in (None, split)}
    wanted = {"audio": audio_column, "text": text_column, "speaker": speaker_column}
    plans = {split: _columns(f"{name}:{split}", stream, wanted) for split, stream in chosen.items()}
    # One split alone that says nothing but "train" is a data set without splits.
    alone = set(splits) == {"train"}

    def recordings() -> Iterator[Recording]:
        for split, stream in chosen.items():
            columns = plans[split]
            # Without features the rows come as they are stored: bytes or a path. With them, `datasets` wants torchcodec
            # even for audio that it is told not to decode.
            stream.info.features = None
            for number, row in enumerate(stream if limit is None else stream.take(limit)):
                key = f"{split}-{number:08d}"
                yield Recording(
                    id=str(row[columns["id"]]) if columns["id"] else key,
                    text=str(row[columns["text"]] or ""),
                    speaker=str(row[columns["speaker"]]) if columns["speaker"] else "unknown",
                    audio=partial(_decode, row[columns["audio"]], f"{name}:{key}"),
                    split=None if alone else own_split(str(split)),
                )

    infos = [stream.info for stream in chosen.values()]
    return Reading(
        language=language,
        licence=next((info.license for info in infos if info.license), "see the data set's card"),
        sources={dataset: revision or "newest revision when it was read"},
        recordings=recordings(),
    )


def own_split(name: str) -> Split:
    """Map a data set's split to train, dev or test: `validation.clean` is dev, `test_net` and `eval` are test.

    Raises:
        LabError: the name begins with none of the known ones.
    """
    for start, split in _OWN_SPLITS.items():
        if name.lower().startswith(start):
            return split
    raise LabError(
        f"split {name!r} is of no known kind; expected a name that begins with one of: {', '.join(_OWN_SPLITS)}"
    )


def parse_name(dataset: str) -> tuple[str, str | None, str | None]:
    """Cut `DATASET[:CONFIG[:SPLIT]]` into its three parts.

    Raises:
        LabError: it is of another form.
    """
    parts = dataset.split(":")
    if not parts[0] or len(parts) > 3:
        raise LabError(f"'hub:{dataset}' is not of the form hub:DATASET[:CONFIG[:SPLIT]]")
    name, config, split = (*parts, None, None)[:3]
    return str(name), config or None, split or None


def open_streams(name: str, config: str | None, revision: str | None) -> Mapping[str, Any]:
    """Open every split of a data set as a stream; `revision` pins a commit of the hub.

    Raises:
        LabError: no such data set, no access, or no network.
    """
    # Two seconds of import that only this corpus needs.
    import datasets

    try:
        return datasets.load_dataset(name, config, streaming=True, revision=revision)
    except Exception as error:  # `datasets` raises whatever its readers and the network raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LabError(
            f"data set {name!r} cannot be opened: {first}; expected a hub name, with access and network, or a folder"
        ) from error


def _columns(what: str, stream: Any, wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    """Find the columns of one split; speaker and id may be missing."""
    present = list(stream.features or next(iter(stream.take(1)), {}))
    known = {"audio": AUDIO_COLUMNS, "text": TEXT_COLUMNS, "speaker": SPEAKER_COLUMNS, "id": ID_COLUMNS}
    found: dict[str, str | None] = {}
    for role, names in known.items():
        asked = wanted.get(role)
        found[role] = asked if asked in present else next((n for n in names if n in present and asked is None), None)
        if found[role] is None and (asked is not None or role in ("audio", "text")):
            raise LabError(
                f"data set {what} has no {role} column {asked or 'among ' + ', '.join(names)}; its columns are "
                f"{', '.join(present)}: name one with {role}_column"
            )
    return found


def _decode(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        if value.get("bytes"):
            return read_audio(value["bytes"], name=name)
        value = value.get("path")
    if not value:
        raise LabError(f"{name} has neither audio bytes nor a path")
    from datasets.utils.file_utils import xopen

    with xopen(str(value), "rb") as file:
        return read_audio(file.read(), name=name)
