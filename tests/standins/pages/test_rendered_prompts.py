import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.data.filters.filtering import LeftOut
from lab.data.sample import Sample, Text
from lab.data.sources import largest_sample, open_samples
from lab.data.video import Sight
from lab.errors import LabError
from standins.pages import rendered_prompts
from standins.pages.fonts import sized_font, typefaces_for
from standins.pages.rendered_prompts import MARGIN, WIDTH, prompt_samples, render_prompt

PROMPT = "Write a short story about a dog that learns to swim, and explain in two sentences why the water was cold."


def test_a_prompt_is_the_same_picture_again_and_another_one_for_another_seed():
    first, again, other = (render_prompt(PROMPT, sample="a", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert first.pixels.shape != other.pixels.shape or (first.pixels != other.pixels).any()
    assert first.typeface in typefaces_for("en")


@pytest.mark.parametrize("name", typefaces_for("en"))
def test_all_text_lies_inside_the_margins(name, monkeypatch):
    monkeypatch.setattr(rendered_prompts, "typefaces_for", lambda language: (name,))
    pixels = render_prompt("fjord (gypsy), JQ| " * 12).pixels.astype(int)
    ink = np.abs(pixels - pixels[0, 0]).sum(-1) > 0
    rows, columns = ink.any(1).nonzero()[0], ink.any(0).nonzero()[0]
    assert ink.any()
    # A slanted foot may reach a pixel beyond its letter's place.
    assert columns[0] >= MARGIN - 1
    assert columns[-1] < WIDTH - MARGIN + 1
    assert rows[0] >= MARGIN
    assert rows[-1] < len(pixels) - MARGIN


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(alphabet="abcij,.", min_size=1, max_size=60), min_size=1, max_size=12))
def test_the_lines_are_the_prompt_again_and_none_is_wider_than_the_picture(words):
    text = " ".join(words)
    drawn = render_prompt(text)
    assert "".join("".join(drawn.lines).split()) == "".join(words)
    font = sized_font(drawn.typeface, drawn.text_height)
    assert all(font.getlength(line) <= WIDTH - 2 * MARGIN for line in drawn.lines)


def test_paragraphs_stay_apart_and_blanks_are_drawn_once():
    drawn = render_prompt("  One.\n\n2.\tTwo   words \n")
    assert drawn.lines == ("One.", "", "2. Two words")


def test_every_text_height_of_the_range_is_drawn():
    heights = {render_prompt(PROMPT, sample=str(k)).text_height for k in range(60)}
    assert heights == set(range(9, 15))


def test_only_typefaces_with_all_signs_are_drawn():
    able = {render_prompt("3 − 2 ≤ Ω ✓", sample=str(k)).typeface for k in range(12)}
    assert able <= {"dejavu_sans", "dejavu_sans_bold", "dejavu_mono", "dejavu_serif", "stix"}
    assert not able & {"computer_modern_roman"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  \n ", "the prompt of 's1' is empty; expected some text to draw"),
        ("a \U0001f408 cat", "the prompt of 's1' has signs that no typeface of dejavu_sans, .* has: \U0001f408"),
        (PROMPT, r"the prompt of 's1' needs \d lines and \d+ pixels, more than 50"),
    ],
)
def test_what_cannot_be_drawn_is_named(text, message, monkeypatch):
    monkeypatch.setattr(rendered_prompts, "MAX_HEIGHT", 50)
    with pytest.raises(LabError, match=message):
        render_prompt(text, sample="s1")


def test_chinese_wraps_between_characters(user_cache_dir, monkeypatch):
    if not list((user_cache_dir / "packages").glob("fonts-wqy-microhei-*")):
        pytest.skip("fonts-wqy-microhei is not in the cache; `lab.data.fetch.fetch` brings it")
    monkeypatch.setenv("OMNI_LAB_CACHE", str(user_cache_dir))
    sized_font.cache_clear()
    text = "今天天气很好，我们一起去公园散步吧，他说好的，然后走了。" * 3
    drawn = render_prompt(text)
    assert drawn.language == "zh"
    assert len(drawn.lines) > 1
    assert "".join(drawn.lines) == text
    assert all(line[0] not in "，。" for line in drawn.lines)


def test_a_prompt_becomes_the_picture_and_the_answer_stays():
    prompts = {"a": "Name a colour.", "b": "  ", "c": "\U0001f408?", "d": "Go."}
    given = [Sample(id=key, content=(Text(prompt),), answer=f"{key}!") for key, prompt in prompts.items()]
    left_out = LeftOut()
    found = list(prompt_samples(given, left_out, seed=3))
    assert [(sample.id, sample.answer) for sample in found] == [("a", "a!"), ("d", "d!")]
    assert found[0].question == "Do what the picture says."
    pixels = found[0].content[0].read()
    np.testing.assert_array_equal(pixels, render_prompt("Name a colour.", sample="a", seed=3).pixels)
    assert left_out == {"nothing written": ["b"], "prompt that cannot be drawn": ["c"]}


@pytest.mark.usefixtures("shared_packages")
def test_the_last_question_of_any_source_is_drawn():
    plain, _ = open_samples("stills", "train", 2)
    made, left_out = open_samples("drawn:stills", "train", 2)
    for before, after in zip(plain, made, strict=True):
        still, page, told = after.content
        assert (still, told) == (before.content[0], Text("Do what the picture says."))
        np.testing.assert_array_equal(page.read(), render_prompt(before.question, sample=before.id).pixels)
        assert (after.answer, after.choices) == (before.answer, before.choices)
    assert left_out == {}
    assert largest_sample("drawn:stills", Sight(), is_video=False, image_size=100, max_tiles=9).frame_size == (900, 100)
