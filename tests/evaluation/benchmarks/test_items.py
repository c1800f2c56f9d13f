import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from PIL import Image as Picture

from lab.data.fetch import packages
from lab.data.sample import Audio, Image, Sample, Text, Video
from lab.errors import LabError
from lab.evaluation.benchmarks import items
from lab.evaluation.benchmarks.endpoints import messages_of
from lab.evaluation.benchmarks.items import data_key, read_questions
from lab.evaluation.benchmarks.replies import identity_of
from tests.data.fakes import tone
from tests.data.films import film
from tests.evaluation.benchmarks.asked import asked
from tests.vision import write_rows


def written(path: Path, *lines: Any) -> str:
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return str(path)


def test_lines_of_json_are_questions_with_their_media(tmp_path: Path) -> None:
    # U+2028 and U+0085 end a line for Python, and none for JSON.
    lines = [
        {"question": " who?\u2028 ", "reference": "me\u0085you"},
        {"id": 7, "question": "how many?", "answer": 0, "image": "a.png", "audio": "sub/b.wav", "video": "c.mp4"},
    ]
    one, other = read_questions(written(tmp_path / "set.jsonl", *lines))
    assert (one.id, one.content, one.answer) == ("0", (Text("who?"),), "me\u0085you")
    assert (other.id, other.answer) == ("7", "0")
    media = (Image(tmp_path / "a.png"), Video(tmp_path / "c.mp4"), Audio(tmp_path / "sub/b.wav"))
    assert other.content == (*media, Text("how many?"))


def test_parquet_of_the_hubs_form_holds_bytes_or_paths(tmp_path: Path) -> None:
    rows = [
        {"question": "a", "reference": "b", "image": {"bytes": b"png", "path": "x.png"}, "audio": None},
        {"question": "c", "reference": "d", "image": {"bytes": None, "path": "y.png"}, "audio": b"wav"},
    ]
    path = tmp_path / "set.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    one, other = read_questions(str(path))
    assert one.content == (Image(b"png"), Text("a"))
    assert other.content == (Image(tmp_path / "y.png"), Audio(b"wav"), Text("c"))
    path.write_bytes(b"PAR1 not")
    with pytest.raises(LabError, match=r"set.parquet is no Parquet file that can be read"):
        read_questions(str(path))


def test_data_are_known_by_their_bytes(tmp_path: Path) -> None:
    first = data_key(written(tmp_path / "set.jsonl", {"question": "a", "reference": "b"}))
    assert first.startswith("set.jsonl ")
    assert first != data_key(written(tmp_path / "set.jsonl", {"question": "a", "reference": "c"}))
    assert data_key("trivia") == f"chatterbot-corpus {packages()['chatterbot-corpus'].version}, English trivia"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "hold nothing to ask"),
        ('{"question": "a"\n', "line 1 of .* is no JSON object"),
        ('\n\n"a"', "line 3 of .* is no JSON object"),
        ('{"question": "a"}', "question 0 of .* needs 'question', and one of 'reference', 'answer'; it has question"),
        ('{"question": " ", "answer": "b"}', "question 0 of"),
        ('{"question": "a", "answer": " "}', "question 0 of"),
        ('{"question": "a", "answer": "b"}\n{"answer": "b"}', "question 1 of"),
        ('{"question": "a", "answer": "b", "image": 3}', "the image of question 0 of .* is neither a path nor bytes"),
        ('{"question": "a", "answer": "b", "video": {"path": ""}}', "the video of question 0 of"),
    ],
)
def test_lines_that_are_no_questions_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "set.jsonl").write_text(text)
    with pytest.raises(LabError, match=message):
        read_questions(str(tmp_path / "set.jsonl"))


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"data 'set.csv' is none of FILE.jsonl, FILE.parquet, hub:"):
        data_key("set.csv")
    with pytest.raises(LabError, match=r"data file .*none.parquet cannot be read \(No such file"):
        data_key(str(tmp_path / "none.parquet"))
    with pytest.raises(LabError, match=r"data file .*none.jsonl cannot be read"):
        read_questions(str(tmp_path / "none.jsonl"))
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe9"}')
    with pytest.raises(LabError, match=r"data file .*latin.jsonl cannot be read \(.*utf-8"):
        read_questions(str(tmp_path / "latin.jsonl"))


def test_trivia_are_the_pairs_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "chatterbot_corpus/data/english"
    folder.mkdir(parents=True)
    (folder / "trivia.yml").write_text("conversations:\n- - Who?\n  - ' Me'\n- lost\n- - How many?\n  - 3\n")
    monkeypatch.setattr(items, "fetch", lambda name: tmp_path)
    first, second = read_questions("trivia")
    assert (first.id, first.content, first.answer) == ("trivia-0000", (Text("Who?"),), "Me")
    assert (second.id, second.content, second.answer) == ("trivia-0002", (Text("How many?"),), "3")


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the form of lmms-lab/ActivityNetQA with two films, unpacked beside the rows."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    root = tmp_path / "ActivityNetQA"
    rows = [
        {"video_name": name, "question": f"what is {name}", "answer": "a film", "question_id": f"{name}_1"}
        for name in ("one", "two")
    ]
    write_rows(root, {"test": rows})
    film(root / "v_one.mp4", 25)
    film(root / "v_two.mkv", 10)
    return root


def test_the_hubs_questions_find_their_videos(videos: Path) -> None:
    found = read_questions(f"hub:{videos}:default:test")
    assert [(one.id, one.question, one.answer) for one in found] == [
        ("one_1", "what is one", "a film"),
        ("two_1", "what is two", "a film"),
    ]
    assert [one.content[0] for one in found] == [Video(videos / "v_one.mp4"), Video(videos / "v_two.mkv")]


def test_a_video_that_is_not_unpacked_or_a_row_of_another_form_is_refused(videos: Path) -> None:
    (videos / "v_two.mkv").rename(videos / "two.mkv")
    with pytest.raises(LabError, match=r"v_two.mp4 is not there"):
        read_questions(f"hub:{videos}")
    (videos / "two.mkv").rename(videos / "v_two.mkv")
    row = {"video_name": "one", "question": "what", "answer": "", "question_id": "3"}
    with (videos / "test.jsonl").open("a") as file:
        file.write("\n" + json.dumps(row))
    with pytest.raises(LabError, match=r"rows of hub:.* do not fit the form activitynet_qa: \{'empty answer': 1\}"):
        read_questions(f"hub:{videos}")
    with pytest.raises(LabError, match=r"unknown split of data set .*: 'dev'; choose one of: test"):
        read_questions(f"hub:{videos}:default:dev")
    with pytest.raises(LabError, match="data set 'owner/none' cannot be had from the Hugging Face hub"):
        data_key("hub:owner/none")


def decoded(url: str, kind: str) -> np.ndarray:
    head, _, content = url.partition(";base64,")
    assert head == f"data:image/{kind}"
    return np.array(Picture.open(io.BytesIO(base64.b64decode(content))))


def test_a_turn_without_media_is_text_and_with_them_parts_before_it(tmp_path: Path) -> None:
    said = Sample(id="1", content=(Text("hi", "system"), Text("what?")))
    assert messages_of(said) == [{"role": "system", "content": "hi"}, {"role": "user", "content": "what?"}]
    red = Picture.new("RGB", (4, 3), "red")
    for kind in ("PNG", "JPEG", "GIF", "WEBP"):
        red.save(tmp_path / "red", kind)
        (turn,) = messages_of(asked("what?", Image(tmp_path / "red")))
        picture, text = turn["content"]
        assert text == {"type": "text", "text": "what?"}
        assert decoded(picture["image_url"]["url"], kind.lower()).shape[:2] == (3, 4)


def test_a_video_is_a_frame_a_second_within_the_papers_size(tmp_path: Path) -> None:
    (parts,) = messages_of(asked("what?", Video(film(tmp_path / "a.mp4", 30, height=400, width=800))))
    frames = [decoded(part["image_url"]["url"], "jpeg") for part in parts["content"][:-1]]
    assert [frame.shape for frame in frames] == [(384, 768, 3)] * 3  # 30 frames at 10 a second


def test_any_sound_is_16_khz_mono_wave() -> None:
    kept = io.BytesIO()
    soundfile.write(kept, np.stack([tone(0.5, rate=44100)] * 2, axis=1), 44100, format="FLAC")
    (turn,) = messages_of(asked("what?", Audio(kept.getvalue())))
    sound, _ = turn["content"]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["input_audio"]["data"])))
    assert (sound["type"], sound["input_audio"]["format"], rate, samples.shape) == (
        "input_audio",
        "wav",
        16000,
        (8000,),
    )


def test_media_that_no_endpoint_takes_are_refused(tmp_path: Path) -> None:
    wave = io.BytesIO()
    soundfile.write(wave, tone(0.1), 16000, format="WAV")
    for medium, message in [
        (Image(b"BM.."), "a picture begins with b'BM..'; expected PNG, JPEG, GIF or WebP"),
        (Image(wave.getvalue()), "a picture begins with b'RIFF"),
        (Video(tmp_path / "none.mp4"), "none.mp4"),
        (Audio(b"noise"), "not audio that can be read"),
        (Image(tmp_path / "none.png"), r"image .*none.png cannot be read \(No such file"),
    ]:
        with pytest.raises(LabError, match=message):
            messages_of(asked("what?", medium))


def test_what_is_asked_is_known_by_role_text_and_the_medias_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    same = identity_of(asked("q", Image(b"x")))
    assert identity_of(asked("q", Image(tmp_path / "a"))) == same
    others = [asked("q"), asked("q", Image(b"y")), asked("r", Image(b"x"))]
    assert same not in {identity_of(other) for other in others}
