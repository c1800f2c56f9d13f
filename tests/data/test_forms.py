import gzip
import io
import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import datasets
import pyarrow as pa
import pytest
from PIL import Image as Picture
from pyarrow import parquet

from lab.data.forms import FORMS
from lab.data.hub import read_samples
from lab.data.sample import Image, Sample, Text, Video, media_file
from lab.errors import LabError, TryAgain


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


@pytest.fixture
def folder(tmp_path):
    """A function that lays out a data set of JSON rows and returns its name."""

    def write(rows, splits=("train",)):
        root = tmp_path / "data"
        root.mkdir()
        for split in splits:
            (root / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return f"hub:{root}"

    return write


def png(colour="red"):
    buffer = io.BytesIO()
    Picture.new("RGB", (4, 3), colour).save(buffer, "PNG")
    return buffer.getvalue()


def llava(key, *turns, **more):
    who = ("human", "gpt")
    return {"id": key, "conversations": [{"from": who[i % 2], "value": t} for i, t in enumerate(turns)], **more}


PAIR = llava("", "What?", "That.")["conversations"]


def samples_of(name, form, **options):
    reading = read_samples(name, form=form, **options)
    return list(reading.samples), {reason: len(ids) for reason, ids in reading.left_out.items()}


def videos(sample):
    return [part.source for part in sample.content if isinstance(part, Video)]


def test_llava_conversations_keep_their_turns_and_the_images_place(folder, tmp_path):
    rows = [
        llava("a", "<image>\nWhat is it?", "A cat.", "Its colour?", "Black.", image="coco/1.jpg"),
        llava("b", "What is it?\n<image>", "A dog.", image="coco/2.jpg"),
        llava("c", "Unmarked?", "Yes.", image="coco/3.jpg"),
        llava("d", "Text only?", "Yes.", image=None),
    ]
    samples, skipped = samples_of(folder(rows), "conversation")
    assert not skipped
    assert [s.id for s in samples] == ["a", "b", "c", "d"]
    first = (Text("What is it?"), Text("A cat.", "assistant"), Text("Its colour?"))
    assert samples[0].content == (Image(tmp_path / "data/coco/1.jpg"), *first)
    assert samples[0].answer == "Black."
    assert samples[1].content == (Text("What is it?"), Image(tmp_path / "data/coco/2.jpg"))
    assert samples[2].content == (Image(tmp_path / "data/coco/3.jpg"), Text("Unmarked?"))
    assert samples[3].content == (Text("Text only?"),)
    assert all(not videos(s) and s.choices == () for s in samples)


def test_conversations_by_role_and_about_videos_are_read(folder, tmp_path):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<image>\nWhat happens?"},
        {"role": "assistant", "content": "Rain."},
    ]
    row = {"id": 7, "conversations": turns, "video": "a/b.mp4"}
    (sample,), _ = samples_of(folder([row]), "conversation")
    assert (sample.id, sample.answer) == ("7", "Rain.")
    assert sample.content == (Text("Be brief.", "system"), Video(tmp_path / "data/a/b.mp4"), Text("What happens?"))


def test_several_images_stand_at_their_marks(folder, tmp_path):
    good = llava("a", "<image> or <image>?", "The first.", images=["1.png", "2.png"])
    (sample,), _ = samples_of(folder([good]), "conversation")
    pictures = [Image(tmp_path / "data" / f"{number}.png") for number in (1, 2)]
    assert sample.content == (pictures[0], Text("or"), pictures[1], Text("?"))


def test_rows_that_do_not_fit_are_counted_by_reason_and_never_guessed(folder):
    rows = [
        llava("good", "<image> What?", "A cat.", image="1.jpg"),
        llava("two marks", "<image><image> What?", "A cat.", image="1.jpg"),
        llava("no answer", "<image> What?", image="1.jpg"),
        llava("no turns", image="1.jpg"),
        llava("empty", "<image> What?", "  ", image="1.jpg"),
        {"id": "stranger", "conversations": [{"from": "bot", "value": "Hello."}], "image": "1.jpg"},
        {"id": "late", "conversations": [*PAIR, {"from": "system", "value": "Stop."}, *PAIR], "image": "1.jpg"},
    ]
    samples, skipped = samples_of(folder(rows), "conversation")
    assert [s.id for s in samples] == ["good"]
    assert skipped == {
        "another number of marks than of images or videos": 1,
        "turns that are not questions and answers in alternation": 3,
        "empty turn": 1,
        "a system message that is not the first": 1,
    }


def test_a_row_of_another_shape_is_counted(folder):
    samples, skipped = samples_of(folder([{"conversations": ["Hello."]}]), "conversation")
    assert samples == []
    assert skipped == {"a row of another shape": 1}


NO_TEXT = {
    '["a cat"]': "no text",
    '{"bytes": ["a cat"]}': "no text",
    "true": "no text",
    "Infinity": "no text",
    '"half of \\ud83d an emoji"': "half a character",
}


@pytest.mark.parametrize("wrong", NO_TEXT)
@pytest.mark.parametrize(
    ("form", "column", "row"),
    [
        ("transcribe", "transcript", '{"file": "a.wav", "text": %s}'),
        ("transcribe", "speaker", '{"file": "a.wav", "text": "a", "speaker": %s}'),
        ("transcribe", "name of a sound, image or video", '{"file": %s, "text": "a"}'),
        ("transcribe", "id", '{"file": "a.wav", "text": "a", "id": %s}'),
        ("pair", "prompt", '{"prompt": %s, "answer": "a"}'),
        ("pair", "answer", '{"prompt": "a", "answer": %s}'),
        ("pair", "input", '{"prompt": "a", "input": %s, "answer": "a"}'),
        ("messages", "turn", '{"messages": [{"role": "user", "content": %s}, {"role": "assistant", "content": "a"}]}'),
        ("image_caption", "caption", '{"image": "a.png", "caption": %s}'),
        ("image_choices", "choice", '{"image": "a.png", "question": "a", "answer": 0, "choices": [%s]}'),
        ("image_choices", "question", '{"image": "a.png", "question": %s, "answer": 0, "choices": ["a"]}'),
        ("sharegpt4video", "caption", '{"video_path": "a.mp4", "captions": [{"idx": -1, "content": %s}]}'),
        ("webvid", "name", '{"video": "a.mp4", "name": %s}'),
        ("activitynet_qa", "answer", '{"video_name": "a", "question": "a", "answer": %s}'),
        ("next_qa", "choice", '{"video": 3, "question": "a", "answer": 0, "a0": "a", "a1": %s}'),
    ],
)
def test_what_is_no_text_is_left_out_and_never_written_as_some(tmp_path, form, column, row, wrong):
    """One such value in a column neither changes the others' nor ends the reading."""
    good = row % '"good"' if column != "choice" else row % '"b"'
    (tmp_path / "train.jsonl").write_text("\n".join([good, row % wrong, good]))
    reading = read_samples(f"hub:{tmp_path}", form=form)
    samples = list(reading.samples)
    assert len(samples) == 2
    assert samples[0].content == samples[1].content
    problem = f"{column} that is {NO_TEXT[wrong]}" if NO_TEXT[wrong] == "no text" else f"{column} with {NO_TEXT[wrong]}"
    assert list(reading.left_out) == [problem]
    json.dumps(reading.left_out, ensure_ascii=False).encode()


@pytest.mark.parametrize("nothing", ["null", "NaN"])
def test_nan_is_nothing_as_null_is(tmp_path, nothing):
    rows = [f'{{"image": "a.png", "caption": {text}}}' for text in ('"nan"', nothing, "7")]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    samples, left_out = samples_of(f"hub:{tmp_path}", "image_caption")
    assert [sample.answer for sample in samples] == ["nan", "7"]
    assert left_out == {"empty caption": 1}


def test_a_line_that_is_no_json_is_left_out_and_the_others_stay_as_they_are(tmp_path):
    good = b'{"prompt": "3", "answer": "[4]"}'
    broken = [b'{"prompt": "a", "ans', b"[1]", b'{"prompt": "\xff", "answer": "a"}', b"7", b"null"]
    (tmp_path / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join([good, *broken, b"", good]) + b"\n")
    reading = read_samples(f"hub:{tmp_path}", form="pair")
    assert [(sample.id, sample.question, sample.answer) for sample in reading.samples] == [
        ("train-00000000", "3", "[4]"),
        ("train-00000006", "3", "[4]"),
    ]
    assert reading.left_out == {
        "line that is no JSON": ["train-00000001", "train-00000003"],
        "line that is no JSON object": ["train-00000002", "train-00000004", "train-00000005"],
    }


def test_rows_in_one_list_and_compressed_rows_are_read(tmp_path):
    rows = [{"prompt": f"p{n}", "answer": "a"} for n in range(3)]
    for name, data in (
        ("list/train.json", json.dumps([*rows[:2], "a row"], indent=1).encode()),
        ("zipped/train.jsonl.gz", gzip.compress("\n".join(map(json.dumps, rows[:2])).encode())),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(data)
        samples, left_out = samples_of(f"hub:{(tmp_path / name).parent}", "pair")
        assert [sample.question for sample in samples] == ["p0", "p1"]
        assert left_out == ({"line that is no JSON object": 1} if "list" in name else {})
    (tmp_path / "list/train.json").write_text("[1]\n" + json.dumps(rows[0]))
    samples, left_out = samples_of(f"hub:{tmp_path / 'list'}", "pair")
    assert ([sample.question for sample in samples], left_out) == (["p0"], {"line that is no JSON object": 1})


def test_a_row_of_a_table_whose_text_is_not_utf_8_is_left_out(tmp_path):
    texts = pa.array([b"a", b"\xff\xfe", b"b"])
    answers = pa.Array.from_buffers(pa.string(), 3, texts.buffers())
    parquet.write_table(pa.table({"prompt": ["p"] * 3, "answer": answers}), tmp_path / "train.parquet")
    reading = read_samples(f"hub:{tmp_path}", form="pair")
    assert [sample.answer for sample in reading.samples] == ["a", "b"]
    assert reading.left_out == {"text that is not UTF-8": ["train-00000001"]}


def test_content_that_stands_where_a_file_is_named_is_the_samples_own_error(folder):
    (sample,), _ = samples_of(
        folder([{"image": "data:image/png;base64," + "A" * 5000, "caption": "a"}]), "image_caption"
    )
    with pytest.raises(LabError, match="cannot be read: File name too long; expected the path of a file"):
        sample.content[0].read()


def test_images_and_a_video_in_one_row_are_left_out(folder):
    _, skipped = samples_of(folder([llava("a", "What?", "That.", image="1.png", video="1.mp4")]), "conversation")
    assert skipped == {"both images and a video": 1}


def test_images_stored_in_parquet_come_as_their_bytes(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    stored = [
        {"bytes": png("red"), "path": "a.png"},
        {"bytes": None, "path": None},
        {"bytes": png("blue"), "path": None},
    ]
    table = pa.table({"image": stored, "caption": ["Red.", "Nothing.", None]})
    info = {"huggingface": json.dumps({"info": {"features": features.to_dict()}})}
    (tmp_path / "pictures").mkdir()
    parquet.write_table(table.replace_schema_metadata(info), tmp_path / "pictures" / "test-00000-of-00001.parquet")
    (sample,), skipped = samples_of(f"hub:{tmp_path / 'pictures'}::test", "image_caption")
    assert sample.content == (Image(png("red")), Text("Describe the image."))
    assert sample.answer == "Red."
    assert sample.id == "test-00000000"
    assert skipped == {"no sound, image or video in the row": 1, "empty caption": 1}


def test_sharegpt4video_gives_the_caption_of_the_whole(folder, tmp_path):
    captions = [{"idx": "1", "content": "A door."}, {"idx": "2", "content": "It opens."}]
    rows = [
        {
            "video_id": "v1",
            "video_path": "panda/v1.mp4",
            "captions": [*captions, {"idx": "-1", "content": "A door opens."}],
        },
        {"video_id": "v2", "video_path": "panda/v2.mp4", "captions": captions},
    ]
    (sample,), skipped = samples_of(folder(rows), "sharegpt4video")
    assert (sample.id, sample.answer, videos(sample)) == ("v1", "A door opens.", [tmp_path / "data/panda/v1.mp4"])
    assert skipped == {"no caption of the whole video": 1}


def test_webvid_gives_the_address_or_a_file(folder):
    row = {
        "videoid": 21,
        "contentUrl": "https://example.org/21.mp4",
        "name": "Waves at dusk",
        "duration": "PT00H00M08S",
    }
    (sample,), _ = samples_of(folder([row]), "webvid")
    assert (sample.id, videos(sample), sample.answer) == ("21", ["https://example.org/21.mp4"], "Waves at dusk")


def test_activitynet_qa_finds_the_file_whatever_its_suffix(folder, tmp_path):
    rows = [{"video_name": name, "question": "is it day", "question_id": f"{name}_3", "answer": "yes", "type": "3"}
            for name in ("1QIUV7WYKXg", "missing")]  # fmt: skip
    name = folder(rows)
    (tmp_path / "data/v_1QIUV7WYKXg.mkv").touch()
    samples, _ = samples_of(name, "activitynet_qa")
    assert [videos(s) for s in samples] == [[tmp_path / "data/v_1QIUV7WYKXg.mkv"], [tmp_path / "data/v_missing.mp4"]]
    assert (samples[0].id, samples[0].answer, samples[0].choices) == ("1QIUV7WYKXg_3", "yes", ())
    assert samples[0].question == "is it day"


def next_qa(answer, **more):
    return {"video": 4010069381, "question": "why did he turn", "answer": answer, "qid": 6, "type": "CW", **more}


CHOICES = {f"a{k}": f"reason {k}" for k in range(5)}


def test_next_qa_gives_the_choice_that_the_number_names(folder, tmp_path):
    samples, skipped = samples_of(folder([next_qa(3, **CHOICES), next_qa(5, **CHOICES)]), "next_qa")
    assert samples[0].choices == tuple(CHOICES.values())
    assert samples[0].answer == "reason 3"
    assert videos(samples[0]) == [tmp_path / "data/4010069381.mp4"]
    assert len(samples) == 1
    assert skipped == {"an answer that is no number of a choice": 1}


def test_open_next_qa_has_no_choices(folder):
    (sample,), _ = samples_of(folder([next_qa("to catch it")]), "next_qa")
    assert (sample.answer, sample.choices) == ("to catch it", ())


def test_reading_stops_at_the_limit(folder):
    rows = [next_qa(f"answer {n}") for n in range(10)]
    name = folder(rows)
    everything, _ = samples_of(name, "next_qa")
    assert len(everything) == 10
    assert samples_of(name, "next_qa", limit=3)[0] == everything[:3]


def test_a_split_has_to_be_named_where_there_are_several(folder):
    name = folder([next_qa("a")], splits=("train", "test"))
    with pytest.raises(LabError, match=r"has several splits; name one of: train, test"):
        read_samples(name, form="next_qa")
    with pytest.raises(LabError, match=r"unknown split of data set .*: 'dev'; choose one of: test, train"):
        read_samples(f"{name}::dev", form="next_qa")
    (sample,), _ = samples_of(f"{name}::test", "next_qa")
    assert sample.id == "test-00000000"


@pytest.mark.parametrize("form", sorted(FORMS))
def test_columns_that_are_missing_are_listed_with_what_the_form_needs(folder, form):
    name = folder([{"colour": "red", "size": 3}])
    with pytest.raises(LabError, match=r"has no column .*; its form needs .*the columns are colour, size") as error:
        read_samples(name, form=form)
    for alternatives in FORMS[form].required:
        assert " or ".join(alternatives) in str(error.value)


def test_what_is_asked_wrongly_is_refused(folder):
    name = folder([next_qa("a")])
    with pytest.raises(
        LabError, match=r"unknown form .* 'nextqa' \(did you mean 'next_qa'\?\); choose one of: activitynet"
    ):
        read_samples(name, form="nextqa")
    with pytest.raises(LabError, match="limit is 0 rows, expected at least 1"):
        read_samples(name, form="next_qa", limit=0)
    with pytest.raises(LabError, match=r"is not of the form hub:DATASET\[:CONFIG\[:SPLIT\]\]"):
        read_samples("hub:a:b:c:d", form="next_qa")


class Stream:
    """What `datasets` gives, as far as it is used; it breaks after so many rows."""

    features = None

    def __init__(self, rows, breaks_after):
        self.rows, self.breaks_after = rows, breaks_after
        self.info = datasets.DatasetInfo()

    def __iter__(self):
        for number, row in enumerate(self.rows):
            if number == self.breaks_after:
                raise ConnectionError("Couldn't reach the hub\nand more")
            yield row

    def take(self, count):
        return Stream(self.rows[:count], self.breaks_after)


def streaming(rows, breaks_after):
    """What opens a data set of that stream."""
    opened = SimpleNamespace(config=SimpleNamespace(data_files=None), info=datasets.DatasetInfo())
    opened.as_streaming_dataset = lambda: {"train": Stream(rows, breaks_after)}
    return lambda *_, **__: opened


def test_a_network_that_fails_is_named_with_the_row(monkeypatch):
    rows = [next_qa(f"answer {n}") for n in range(5)]
    monkeypatch.setattr(datasets, "load_dataset_builder", streaming(rows, 3))
    reading = read_samples("hub:lmms-lab/NExTQA:OE", form="next_qa")
    assert [next(reading.samples).answer for _ in range(3)] == ["answer 0", "answer 1", "answer 2"]
    with pytest.raises(LabError, match=r"lmms-lab/NExTQA:train broke off at row 3: Couldn't reach the hub; check"):
        next(reading.samples)


def test_a_network_that_fails_before_the_first_row_is_named(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset_builder", streaming([next_qa("a")], 0))
    with pytest.raises(
        LabError, match=r"NExTQA:train cannot be read: Couldn't reach the hub; check access and network"
    ):
        read_samples("hub:lmms-lab/NExTQA:OE", form="next_qa")


def test_a_data_set_that_cannot_be_opened_is_named(monkeypatch):
    def refuse(*args, **options):
        raise ConnectionError("Couldn't reach 'lmms-lab/NExTQA' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    with pytest.raises(LabError, match=r"'lmms-lab/NExTQA' cannot be opened: Couldn't reach .*access and network"):
        read_samples("hub:lmms-lab/NExTQA:MC:test", form="next_qa")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_media_become_files(tmp_path, cache, monkeypatch):
    image = media_file(png())
    assert image.read_bytes() == png()
    assert media_file(png()) == image
    assert media_file(png("blue")) != image
    assert media_file(image) == image
    monkeypatch.setenv("OMNI_LAB_MEDIA", str(tmp_path / "unpacked"))
    with pytest.raises(LabError, match=r"no\.mp4 is not there; expected .* unpacked files .* \(OMNI_LAB_MEDIA"):
        media_file(tmp_path / "unpacked" / "no.mp4")
    with pytest.raises(LabError, match=r"no\.mp4 is not there$"):
        media_file(tmp_path / "no.mp4")


@pytest.fixture
def web(tmp_path):
    """The address of a web server on this machine, and the folder that it serves."""
    (tmp_path / "served").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def send_head(self):
            if "busy" in self.path:
                return self.send_error(503)
            return super().send_head()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path / "served"
    server.shutdown()
    server.server_close()


def test_what_an_address_leads_to_is_kept_once(web, cache):
    address, served = web
    (served / "a.mp4").write_bytes(b"a video")
    path = media_file(f"{address}/a.mp4?width=3")
    assert path.read_bytes() == b"a video"
    assert path.suffix == ".mp4"
    (served / f"a.{'b' * 240}").write_bytes(b"another")
    assert media_file(f"{address}/a.{'b' * 240}").read_bytes() == b"another"
    (served / "a.png").write_bytes(png())
    asked = Sample(id="a", content=(Image(f"{address}/a.png"),))
    assert asked.content[0].read().shape == (3, 4, 3)
    (served / "a.mp4").unlink()
    assert media_file(f"{address}/a.mp4?width=3") == path


def test_an_address_that_leads_nowhere_is_named_and_leaves_nothing(web, cache):
    address, _ = web
    with pytest.raises(LabError, match=r"/none\.mp4 cannot be read: .*check the network and the address"):
        media_file(f"{address}/none.mp4")
    assert list((cache / "media").glob("*")) == []


def test_what_the_network_refuses_now_is_told_apart_from_what_is_not_there(web, cache):
    address, _ = web
    with pytest.raises(LabError) as gone:
        media_file(f"{address}/none.mp4")
    assert not isinstance(gone.value, TryAgain)
    for passing in (f"{address}/busy.mp4", "http://127.0.0.1:9/a.mp4"):
        with pytest.raises(
            TryAgain, match=r"\.mp4 cannot be read: .*check the network and the address, and try again$"
        ):
            media_file(passing)
