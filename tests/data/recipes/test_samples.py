"""Samples of any media are built into a folder, and read back as they were but that what is drawn is a file."""

import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from datasets import load_dataset
from PIL import Image as Picture

from lab import paths
from lab.data import sources as sample_sources
from lab.data.filters.filtering import Filtered
from lab.data.filters.steps import ExactDuplicates, NotEmpty, Pack
from lab.data.instructions.instructions import split_of_group, table_of
from lab.data.recipes.card import read_card
from lab.data.recipes.recipe import Recipe, check_recipe, read_recipe
from lab.data.recipes.run import build
from lab.data.sample import Audio, Drawn, Image, Sample, Text, Video
from lab.data.sources import SampleSource, check_source, largest_sample, open_samples, sources_sha256
from lab.data.speech.audio import SAMPLING_RATE, Clip
from lab.data.splits import SPLITS
from lab.data.video import Sight, VideoFrames
from lab.errors import LabError
from lab.paths import cache_dir
from lab.training import sample_filters
from lab.training.sample_filters import SampleFilter
from tests.data.fakes import tone

RECIPE = """
name = "shown"
shard_rows = 2
[[source]]
name = "toy"
from = "samples"
data = "toy"
count = 9
licence = "CC0-1.0"
frame_size = 24
max_frames = 3
[[step]]
use = "not_empty"
"""


def picture(colour: int, sight: Sight) -> np.ndarray:
    return np.full((sight.frame_size, sight.frame_size + 1, 3), (colour, 7, 9), dtype=np.uint8)


def film(seconds: float, sight: Sight) -> VideoFrames:
    moments = np.array(sight.moments(seconds))
    frames = np.stack([picture(number, sight) for number in range(len(moments))])
    return VideoFrames(frames=frames, seconds=moments, duration_seconds=seconds)


def png(colour: int) -> bytes:
    buffer = io.BytesIO()
    Picture.fromarray(picture(colour, Sight(frame_size=9))).save(buffer, "PNG")
    return buffer.getvalue()


def every_kind(folder: Path) -> list[Sample]:
    """Drawn media, bytes, files, addresses, a stretch of a corpus; several turns, a system message, choices."""
    soundfile.write(folder / "a.wav", tone(0.3), SAMPLING_RATE)
    (np.arange(900) - 300).astype("<i2").tofile(folder / "corpus.pcm")
    choices = ("a cat", "a dog")
    talk = (
        Text("Be brief.", "system"),
        Image(Drawn(picture, (1,))),
        Text("What is this?"),
        Text("A cat.", "assistant"),
        Video(Drawn(film, (2.5,))),
        Audio(Drawn(tone, (0.25,)), speaker="anna", text="a tone"),
    )
    asked = {"task": "what", "source": "toy"}
    return [
        Sample(id="talk", content=talk, answer="a dog", choices=choices, group="g", **asked),
        Sample(id="bytes", content=(Image(png(2)), Text("And this?")), answer="a cat", **asked),
        Sample(id="file", content=(Audio(folder / "a.wav"),), answer="said", **asked),
        Sample(id="clip", content=(Audio(Clip(folder / "corpus.pcm", 100, 500)),), answer="said", **asked),
        Sample(id="address", content=(Image("https://example.org/a.png"), Text("Where?")), answer="here", **asked),
        Sample(id="text", content=(Text("Which?"),), answer="a cat", choices=choices, **asked),
        Sample(id="again", content=(Image(Drawn(picture, (1,))), Text("What?")), answer="a cat", **asked),
    ]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    samples = every_kind(tmp_path)
    source = SampleSource(read=lambda split, count: samples[:count], largest=lambda sight: None, packages=())  # type: ignore[arg-type, return-value]
    monkeypatch.setitem(sample_sources.SAMPLE_SOURCES, "toy", lambda: source)
    return samples


def recipe(folder: Path, text: str = RECIPE) -> Recipe:
    (folder / "shown.toml").write_text(text)
    return read_recipe(folder / "shown.toml")


def seen(part: Any, sight: Sight) -> list[Any]:
    """What a part reads as."""
    if isinstance(part, Text) or isinstance(part.source, str):
        return [part]
    made = part.read() if isinstance(part, Audio) else part.read(sight)
    if isinstance(made, VideoFrames):
        return [made.frames.tolist(), made.seconds.tolist(), made.duration_seconds]
    return [made.dtype, made.tolist()]


def without_place(sample: Sample) -> Sample:
    content = tuple(part if isinstance(part, Text) else replace(part, source="") for part in sample.content)
    return replace(sample, content=content)


def test_samples_of_every_medium_are_read_back_as_they_were(toy: list[Sample], tmp_path: Path) -> None:
    _, card = build(recipe(tmp_path), workers=1)
    back, left_out = open_samples("built:shown", "train", 0)
    assert (card["rows"], card["sources"][0]["kind"], left_out) == (7, "samples", {})
    sight = Sight(frame_size=24, max_frames=3)
    for one, made in zip(toy, back, strict=True):
        assert made.id == f"toy-{one.id}"
        assert made.source == "built:shown"
        assert without_place(replace(made, id=one.id, source=one.source, group=one.group)) == without_place(one)
        for part, again in zip(one.content, made.content, strict=True):
            assert seen(again, sight) == seen(part, sight)
    assert [one.group for one in back] == [one.group for one in toy]
    named = [[Path(part.source).suffix for part in one.content if not isinstance(part, Text)] for one in back]  # type: ignore[arg-type]
    assert named == [[".png", "", ".wav"], [""], [".wav"], [".flac"], [".png"], [], [".png"]]
    assert back[2].content == toy[2].content  # a file stays where it is
    assert back[6].content[0] == back[0].content[1]  # what is equal is written once
    with pytest.raises(LabError, match="shown has 7 rows and none of the side 'test'; name it in a source's split"):
        open_samples("built:shown", "test", 0)
    drawn, _ = open_samples("built:shown", "train", 3)
    assert len(drawn) == 3
    assert drawn == [one for one in back if one in drawn] != back[:3]  # of all, in their order
    assert largest_sample("built:shown", sight, is_video=False, image_size=8, max_tiles=2).frame_size == (16, 8)


def test_a_built_folder_can_be_moved_and_names_what_vanished_from_it(toy: list[Sample], tmp_path: Path) -> None:
    out, card = build(recipe(tmp_path), out=tmp_path / "built", workers=1)
    before, _ = open_samples(f"built:{out}", "train", 0)
    told = seen(before[0].content[4], Sight())
    state = sources_sha256(f"built:{out}")
    moved = out.rename(tmp_path / "moved")
    shutil.rmtree(cache_dir())
    back, _ = open_samples(f"built:{moved}", "train", 0)
    assert seen(back[0].content[4], Sight()) == told
    assert sources_sha256(f"built:{moved}") != state  # the name is part of it, as everywhere
    assert read_card(moved)["rows_hash"] == card["rows_hash"]
    (media,) = [path for path in moved.iterdir() if path.is_dir()]
    assert Counter(path.suffix for path in media.iterdir()) == {".png": 1, ".wav": 1, ".flac": 1, "": 2}
    film = next(path for path in media.iterdir() if path.is_dir())
    (film / "frame_1.png").unlink()
    with pytest.raises(LabError, match=rf"{film.name} holds 2 frames; expected 3, as its moments\.json says"):
        back[0].content[4].read()  # type: ignore[union-attr]
    (gone,) = media.glob("*.png")
    gone.unlink()
    with pytest.raises(LabError, match=rf"{gone.name} is not there, as are 0 other media of rows; build it again"):
        open_samples(f"built:{moved}", "train", 0)
    with pytest.raises(LabError, match=r"moved/gone has no card\.json; expected a folder that `lab data build` made"):
        check_source(f"built:{moved}/gone")


def test_the_rows_of_a_folder_of_pictures_open_as_a_data_set(toy: list[Sample], tmp_path: Path) -> None:
    toy[:] = [replace(toy[6], id=str(n), content=(Image(Drawn(picture, (n,))),)) for n in range(9)]
    out, _ = build(recipe(tmp_path, RECIPE.replace("shard_rows = 2", "")), workers=1)
    rows = load_dataset(str(out), cache_dir=str(tmp_path / "datasets"), split="train")
    assert rows["id"] == [f"toy-{n}" for n in range(9)]


def test_rows_of_text_are_of_the_side_of_their_group(toy: list[Sample], tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "prompt": f"p{n}", "answer": "a"} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = '[[source]]\nname = "own"\nfrom = "files"\npath = "rows.jsonl"\nlicence = "MIT"\n'
    build(recipe(tmp_path, RECIPE.replace("[[step]]", f"{own}[[step]]")), workers=1)
    held_out = [row["id"] for row in rows if split_of_group(row["id"]) == "test"]
    assert held_out
    assert [one.id for one in open_samples("built:shown", "test", 0)[0]] == held_out
    parts = [open_samples("built:shown", split, 0)[0] for split in SPLITS]
    assert sum(map(len, parts)) == 67


def test_media_belong_to_what_is_asked() -> None:
    rows = table_of(
        [
            Sample(id="red", content=(Image("https://a/red.png"), Text("What?")), answer="a", source="s"),
            Sample(id="blue", content=(Image("https://a/blue.png"), Text("What?")), answer="a", source="s"),
            Sample(id="twice", content=(Image("https://a/red.png"), Text("What?")), answer="a", source="s"),
            Sample(id="heard", content=(Audio("https://a/b.wav"),), answer="a", source="s"),
            Sample(id="nothing", content=(Text(" "),), answer="a", source="s"),
        ]
    )
    assert ExactDuplicates().apply(rows).reasons.tolist() == [None, None, "the same as an earlier row", None, None]
    assert sum(ExactDuplicates(columns=("answer",)).apply(rows).keep) == 1
    assert NotEmpty().apply(rows).reasons.tolist() == [None, None, None, None, "empty prompt"]
    with pytest.raises(LabError, match="row 'red' holds media, whose tokens only a model can count; leave out the"):
        Pack(budget=99).apply(rows)


def test_a_build_that_stops_in_its_media_goes_on(
    toy: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, card = build(recipe(tmp_path), out=tmp_path / "whole", workers=1)
    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path / "stopped"))
    real, left = paths.whole, [0]

    @contextmanager
    def counted(path: Path) -> Iterator[Path]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        with real(path) as unfinished:
            yield unfinished

    monkeypatch.setattr(paths, "whole", counted)
    for more in range(1, 40):
        left[0] = more
        try:
            build(recipe(tmp_path), out=tmp_path / "again", workers=1)
        except KeyboardInterrupt:
            continue
        break
    assert more > 3
    assert read_card(tmp_path / "again")["rows_hash"] == card["rows_hash"]
    files = [
        sorted(p.relative_to(f) for p in (f / "media").rglob("*")) for f in (tmp_path / "whole", tmp_path / "again")
    ]
    assert files[0] == files[1]


def test_a_sample_whose_media_cannot_be_had_is_left_out_and_all_of_them_are_an_error(
    toy: list[Sample], tmp_path: Path
) -> None:
    toy[2] = replace(toy[2], content=(Audio(tmp_path / "gone.wav"),))
    _, card = build(recipe(tmp_path), workers=1)
    (source,) = card["sources"]
    assert (source["rows"], source["left_out"]) == (6, {"media that cannot be had": ["file"]})
    toy[:] = toy[2:3]
    with pytest.raises(LabError, match=r"gone\.wav is not there"):
        check_recipe(recipe(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ('data = "toy"', 'data = "toyy"'),
            r"source 1 \(samples\) of recipe shown\.toml: unknown source of samples 'toyy'",
        ),
        (('data = "toy"', 'data = "spoken:espek:toy"'), r"unknown engine 'espek' \(did you mean 'espeak'\?\)"),
        (("count = 9", "count = 0"), "parameter 'count' of source 1 .* is 0: input should be greater"),
        (("count = 9", 'count = 9\nsplit = "tran"'), "parameter 'split' of source 1 .* is 'tran': input should be"),
        (("frame_size = 24", "frame_sice = 24"), "unknown parameter of source 1 .* 'frame_sice' .did you mean"),
    ],
)
def test_a_bad_name_is_told_before_anything_is_read(tmp_path: Path, changes: tuple[str, str], message: str) -> None:
    with pytest.raises(LabError, match=message):
        recipe(tmp_path, RECIPE.replace(*changes))


def test_a_filter_of_samples_is_a_step(toy: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[list[Sample]] = []

    def short(samples: list[Sample], value: float) -> Filtered:
        judged.append(samples)
        sounds = [[part for part in one.content if isinstance(part, Audio)] for one in samples]
        reasons = ["short" if found and found[0].num_samples < value else None for found in sounds]
        return Filtered([one.id for one in samples], reasons, name="short")

    monkeypatch.setattr(sample_filters, "SAMPLE_FILTERS", {"short": SampleFilter(judge=short, value=1000.0)})
    step = '[[step]]\nuse = "samples"\nfilter = "short"\n'
    _, card = build(recipe(tmp_path, RECIPE + step), workers=1)
    assert card["steps"][1]["dropped"] == {"short": 1}
    assert [(one.id, one.choices) for one in judged[0]] == [(f"toy-{one.id}", one.choices) for one in toy]
    assert judged[0][0].content[5].text == "a tone"  # type: ignore[union-attr]
    _, card = build(recipe(tmp_path, RECIPE + step + 'value = 4100\nsources = ["toy"]\n'), workers=1)
    assert card["steps"][1]["dropped"] == {"short": 2}
    with pytest.raises(LabError, match=r"step 2 \(samples\): no row is of text; the sources of rows are: toy"):
        build(recipe(tmp_path, RECIPE + step + 'sources = ["text"]\n'), workers=1)
    with pytest.raises(LabError, match=r"step 2 \(samples\) of recipe shown\.toml: unknown filter of samples 'shor'"):
        recipe(tmp_path, RECIPE + step.replace("short", "shor"))


def test_files_that_hold_media_are_read_as_samples_or_not_at_all(toy: list[Sample], tmp_path: Path) -> None:
    out, _ = build(recipe(tmp_path), workers=1)
    text = f'[[source]]\nname = "own"\nfrom = "files"\npath = "{out}"\nlicence = "MIT"\n'
    with pytest.raises(LabError, match="has messages with media; read what was built as a source of samples, as in"):
        check_recipe(recipe(tmp_path, text))
