import json
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from lab.data import hub
from lab.data.speech.corpora import load_corpus, own_split
from lab.data.splits import SPLITS, split_of
from lab.errors import LabError
from tests.data.fakes import encoded, tone

TEXTS = {
    split: [f"This is {split} sentence number {n}." for n in range(12)] for split in ("train", "validation", "test")
}


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A folder of audio with a metadata file in each split, as the hub's audio data sets are laid out."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    root = tmp_path / "speech"

    def write(splits=("train", "validation", "test"), column="transcription", speakers=True, texts=TEXTS):
        for split in splits:
            (root / split).mkdir(parents=True)
            lines = []
            for number, text in enumerate(texts[split]):
                name = f"clip{number}.wav"
                (root / split / name).write_bytes(encoded(tone(0.4, 22050), 22050, "", "wav"))
                row = {"file_name": name, column: text}
                lines.append(json.dumps({**row, "speaker_id": f"s{number % 3}"} if speakers else row))
            (root / split / "metadata.jsonl").write_text("\n".join(lines))
        return root

    return write


def test_columns_are_found_and_the_data_sets_own_splits_hold(dataset):
    corpus = load_corpus(f"hub:{dataset()}")
    assert {u.answer for u in corpus.split("test")} == set(TEXTS["test"])
    expected = {text for text in TEXTS["train"] if split_of(text) != "test"}
    assert {u.answer for u in corpus.split("train")} == expected
    assert {u.answer for u in corpus.split("dev")} == {t for t in TEXTS["validation"] if split_of(t) != "test"}
    assert {u.sound.speaker for u in corpus.samples} == {"s0", "s1", "s2"}
    assert corpus.samples[0].sound.read().size == pytest.approx(6400, abs=32)
    dropped = sum(split_of(text) == "test" for text in TEXTS["train"])
    assert corpus.manifest["skipped"].get("train sentence of the test bucket", 0) == dropped


def test_audio_stored_in_parquet_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    clip = {"bytes": encoded(tone(0.4), 16000, "", "wav"), "path": "a.wav"}
    features = datasets.Features({"audio": datasets.Audio(), "sentence": datasets.Value("string")})
    table = pa.table({"audio": [clip, {"bytes": None, "path": None}], "sentence": ["Hello there.", "No sound."]})
    info = {"huggingface": json.dumps({"info": {"features": features.to_dict()}})}
    (tmp_path / "speech").mkdir()
    parquet.write_table(table.replace_schema_metadata(info), tmp_path / "speech" / "test-00000-of-00001.parquet")
    corpus = load_corpus(f"hub:{tmp_path / 'speech'}")
    assert [u.answer for u in corpus.split("test")] == [u.answer for u in corpus.samples] == ["Hello there."]
    assert corpus.manifest["skipped"] == {"no sound, image or video in the row": 1}


def test_training_leaves_out_what_the_data_sets_own_test_holds(dataset):
    texts = {**TEXTS, "train": TEXTS["train"] + TEXTS["test"]}
    corpus = load_corpus(f"hub:{dataset(texts=texts)}")
    assert not {u.answer for u in corpus.split("train")} & set(TEXTS["test"])


def test_one_split_can_be_asked_for(dataset):
    corpus = load_corpus(f"hub:{dataset()}::test")
    assert len(corpus.samples) == len(corpus.split("test")) == 12


def test_limit_and_missing_speakers(dataset):
    corpus = load_corpus(f"hub:{dataset(splits=('test',), column='sentence', speakers=False)}", limit=5)
    assert len(corpus.samples) == 5
    assert {u.sound.speaker for u in corpus.samples} == {"unknown"}


def test_a_data_set_without_splits_is_split_by_sentence(dataset):
    texts = {"train": [f"Sentence {n} of many others." for n in range(40)]}
    corpus = load_corpus(f"hub:{dataset(splits=('train',), texts=texts)}")
    found = {u.answer: split for split in SPLITS for u in corpus.split(split)}
    assert found == {text: split_of(text) for text in texts["train"]}


def test_a_sound_that_cannot_be_read_is_counted_and_named_with_its_corpus(dataset):
    root = dataset(splits=("test",))
    (root / "test" / "clip3.wav").write_bytes(b"no sound")
    manifest = load_corpus(f"hub:{root}").manifest
    assert (manifest["utterances"], manifest["skipped"]) == (11, {"audio that cannot be read": 1})
    (problem,) = manifest["problems"]
    assert problem.startswith(f"sample 'test-00000003' of corpus 'hub:{root}': ")
    assert "is not audio that can be read" in problem


def test_a_line_of_metadata_that_cannot_be_used_is_its_recordings_own(dataset):
    root = dataset(splits=("test",))
    lines = (root / "test" / "metadata.jsonl").read_text().splitlines()
    lines[1] = json.dumps({"file_name": "gone.wav", "transcription": "A file that is not there."})
    lines[2] = lines[2].replace('"This is test sentence number 2."', "NaN")
    lines[3] = lines[3].replace('"This is test sentence number 3."', '["a", "list"]')
    lines[4] = lines[4].replace("sentence", "\\ud83d")
    lines[5] = lines[5][:20]
    lines[6] = lines[6].replace('"clip6.wav"', "null")
    (root / "test" / "metadata.jsonl").write_text("\n".join(lines))
    corpus = load_corpus(f"hub:{root}")
    assert [u.answer for u in corpus.samples] == [TEXTS["test"][n] for n in (0, 7, 8, 9, 10, 11)]
    assert corpus.manifest["skipped"] == {
        "audio that cannot be read": 1,
        "line that is no JSON": 1,
        "no sound, image or video in the row": 1,
        "text empty after normalisation": 1,
        "transcript that is no text": 1,
        "transcript with half a character": 1,
    }
    *rows, missing = corpus.manifest["problems"]
    assert rows == [
        f"row 'test-0000000{number}' of {root}: {reason}"
        for number, reason in (
            (3, "transcript that is no text"),
            (4, "transcript with half a character"),
            (5, "line that is no JSON"),
            (6, "no sound, image or video in the row"),
        )
    ]
    assert missing.endswith("test/gone.wav is not there")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_row_of_metadata_in_a_table_that_cannot_be_used_is_its_recordings_own(dataset, kind):
    root = dataset(splits=("test",))
    metadata = root / "test" / "metadata.jsonl"
    rows = [json.loads(line) for line in metadata.read_text().splitlines()]
    metadata.unlink()
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    if kind == "csv":
        lines = [",".join(columns), *(",".join(row.values()) for row in rows)]
        lines[3] += ",one more"
        lines[4] = lines[4].replace("This", '"This')
        data = "\n".join(lines).encode().replace(b"sentence number 4", b"sentence \xff 4")
        reasons = {
            "line of another number of fields than the first": 1,
            "line with a quote that is not closed, or not where its field begins and ends": 1,
            "text that is not UTF-8": 1,
        }
        (root / "test" / "metadata.csv").write_bytes(data)
        lost = {2, 3, 4}
    else:
        path = root / "test" / "metadata.parquet"
        parquet.write_table(pa.table(columns), path, row_group_size=4, compression="none", use_dictionary=False)
        damage(path, 1)
        reasons, lost = {f"row in a damaged part of a Parquet file ({path})": 4}, {4, 5, 6, 7}
    corpus = load_corpus(f"hub:{root}")
    assert [u.answer for u in corpus.samples] == [TEXTS["test"][n] for n in range(12) if n not in lost]
    assert corpus.manifest["skipped"] == reasons
    assert sorted(problem.partition("'")[2][:13] for problem in corpus.manifest["problems"]) == [
        f"test-0000000{n}" for n in sorted(lost)
    ]


def damage(path: Path, group: int) -> None:
    """Overwrite a row group of a Parquet file."""
    columns = [parquet.read_metadata(path).row_group(group).column(n) for n in range(2)]
    with path.open("r+b") as file:
        for column in columns:
            file.seek(column.dictionary_page_offset or column.data_page_offset)
            file.write(b"\xff" * column.total_compressed_size)


def test_a_damaged_file_of_several_is_its_rows_own_and_nothing_but_damage_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    clip = {"bytes": encoded(tone(0.4), 16000, "", "wav"), "path": "a.wav"}
    root = tmp_path / "speech"
    root.mkdir()
    for number in range(3):
        table = pa.table({"audio": [clip] * 2, "sentence": [f"Hello {number}.", f"Bye {number}."]})
        parquet.write_table(table, root / f"test-0000{number}-of-00003.parquet", row_group_size=1)
    first, second, third = sorted(root.iterdir())
    second.write_bytes(second.read_bytes()[:-20])
    damage(third, 0)
    corpus = load_corpus(f"hub:{root}")
    assert [u.answer for u in corpus.samples] == ["Hello 0.", "Bye 0.", "Bye 2."]
    assert corpus.manifest["skipped"] == {
        f"file that cannot be read as Parquet ({second})": 1,
        f"row in a damaged part of a Parquet file ({third})": 1,
    }
    for path in (first, second, third):
        path.write_bytes(b"PAR1")
    with pytest.raises(LabError, match="speech:test has no row that can be read: file that cannot be read as"):
        load_corpus(f"hub:{root}")


def test_a_data_set_of_csv_is_read_line_by_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    root = tmp_path / "pairs"
    root.mkdir()
    told = [
        "\ufeffprompt\tanswer",
        "a\t007",
        "b\tNone",
        '"two\nlines"\t"a ""word"""',
        "c\t",
        "d",
        "",
        'e\t"open',
        'f\t"1.10"',
    ]
    (root / "train.tsv").write_text("\n".join(told), encoding="utf-8")
    reading = hub.read_samples(f"hub:{root}", form="pair")
    assert [(one.question, one.answer) for one in reading.samples] == [
        ("a", "007"),
        ("b", "None"),
        ("two\nlines", 'a "word"'),
        ("f", "1.10"),
    ]
    assert reading.left_out == {
        "a row of another shape": ["train-00000003"],
        "line of another number of fields than the first": ["train-00000004"],
        "line with a quote that is not closed, or not where its field begins and ends": ["train-00000005"],
    }
    (root / "train.tsv").write_bytes("prompt\tanswer\na\tb".encode("utf-16"))
    with pytest.raises(
        LabError, match="has no row that can be read: file without a first line of UTF-8 that names its"
    ):
        next(hub.read_samples(f"hub:{root}", form="pair").samples)


def test_a_split_that_is_not_there_lists_the_choices(dataset):
    with pytest.raises(LabError, match=r"unknown split of data set .*: 'dev'; choose one of: .*validation"):
        load_corpus(f"hub:{dataset()}::dev")


def test_a_data_set_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabError, match=r"data set .* cannot be opened: .*expected a hub name"):
        load_corpus(f"hub:{tmp_path / 'empty'}")


@pytest.mark.parametrize("name", ["hub::x", "hub:a:b:c:d"])
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(LabError, match=r"is not of the form hub:DATASET\[:CONFIG\[:SPLIT\]\]"):
        load_corpus(name)


def test_a_limit_below_one_is_refused(dataset):
    with pytest.raises(LabError, match="limit is 0 rows, expected at least 1"):
        load_corpus(f"hub:{dataset()}", limit=0)


def test_split_names_of_the_hub_are_understood():
    assert [own_split(name) for name in ("train.360", "validation.clean", "dev", "test_net", "eval")] == [
        "train",
        "dev",
        "dev",
        "test",
        "test",
    ]
    with pytest.raises(LabError, match="split 'other' is of no known kind"):
        own_split("other")


def correct(root: Path, old: str, new: str) -> None:
    path = root / "test" / "metadata.jsonl"
    path.write_text(path.read_text().replace(old, new))


def said(name: str) -> list[str]:
    return [one.answer for one in load_corpus(name).split("test")]


def test_a_folder_that_was_corrected_is_prepared_again(dataset):
    root = dataset(splits=("test",))
    assert said(f"hub:{root}") == TEXTS["test"]
    correct(root, "number 3", "number E")
    assert said(f"hub:{root}") == [text.replace("number 3", "number E") for text in TEXTS["test"]]
    correct(root, "number E", "number 3")
    assert said(f"hub:{root}") == TEXTS["test"]
    before = load_corpus(f"hub:{root}").sha256
    (root / "test" / "clip3.wav").write_bytes(encoded(tone(0.4, 22050, 880.0), 22050, "", "wav"))
    assert load_corpus(f"hub:{root}").sha256 != before


def test_a_folder_of_the_same_name_in_another_place_is_another_corpus(dataset, tmp_path, monkeypatch):
    root = dataset(splits=("test",))
    for number in (1, 2):
        shutil.copytree(root, tmp_path / str(number) / "own_speech")
    correct(tmp_path / "2" / "own_speech", "number 3", "number E")
    found = []
    for number in (1, 2):
        monkeypatch.chdir(tmp_path / str(number))
        found.append(said("hub:own_speech"))
    assert found == [TEXTS["test"], [text.replace("number 3", "number E") for text in TEXTS["test"]]]


def test_a_folder_that_was_deleted_is_not_served_from_the_cache(dataset, monkeypatch):
    root = dataset(splits=("test",))
    load_corpus(f"hub:{root}")
    shutil.rmtree(root)

    def gone(name):
        raise LabError(f"data set {name!r} cannot be had")

    monkeypatch.setattr(hub, "data_revision", gone)
    with pytest.raises(LabError, match="speech' cannot be had"):
        load_corpus(f"hub:{root}")


def test_a_commit_can_be_named_and_is_the_one_that_is_read(dataset, monkeypatch):
    root, asked = dataset(splits=("test",)), []
    real = datasets.load_dataset_builder

    def load(name, config, *, revision, **options):
        asked.append((name, config, revision))
        return real(str(root), **options)

    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    first, second = (load_corpus(name) for name in ("hub:owner/name", "hub:owner/name@c0ffee:en"))
    commits = ["commit of owner/name", "commit of owner/name@c0ffee"]
    assert asked == [("owner/name", None, commits[0]), ("owner/name", "en", commits[1])]
    assert list(first.manifest["sources"].values()) + list(second.manifest["sources"].values()) == commits
    load_corpus("hub:owner/name")
    assert len(asked) == 2
    hub.pin("owner/name").unlink()
    monkeypatch.setattr(hub, "data_revision", lambda name: "a newer commit")
    assert load_corpus("hub:owner/name").manifest["sources"] == {"owner/name": "a newer commit"}
