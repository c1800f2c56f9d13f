from itertools import islice

import numpy as np

from lab.data.images import read_image
from standins.pages.page_settings import PAGES
from standins.pages.rendered_prompts import render_prompt
from standins.pages.rendered_text import make_page, render
from standins.pages.synthetic_pictures import chart_samples, page_samples, page_transcript, prompt_samples


def test_a_page_gives_its_transcript_and_a_question():
    found = list(islice(page_samples(PAGES["labelled"], seed=0, split="train"), 8))
    assert len({sample.id for sample in found}) == 8
    for number in range(4):
        page = make_page(PAGES["labelled"], seed=0, index=number, split="train")
        written, asked = found[2 * number : 2 * number + 2]
        lines = written.answer.split("\n")
        assert lines == [f"{entry.label} {entry.value}" for entry in page.entries] == page_transcript(page).split("\n")
        assert asked.answer in asked.choices
        assert asked.answer in {entry.value for entry in page.entries}
        np.testing.assert_array_equal(np.asarray(read_image(written.images[0])), render(page))
        assert written.images == asked.images


def test_a_page_without_labels_is_written_down_without_blanks():
    page = make_page(PAGES["lines"], seed=0, index=0, split="train")
    assert page_transcript(page) == "\n".join(entry.value for entry in page.entries)


def test_charts_stream_with_several_questions_each():
    found = list(islice(chart_samples(seed=0, split="dev"), 14))
    assert len({sample.id for sample in found}) == 14
    assert len({sample.images for sample in found}) == 3
    assert all(sample.question.startswith("<image>\n") and sample.answer in sample.choices for sample in found)


def test_a_prompt_becomes_the_picture_and_the_answer_stays():
    given = [
        ("a", "Name a colour.", "Red."),
        ("b", "  ", "Nothing."),
        ("c", "\U0001f408?", "A cat."),
        ("d", "Go.", "I do."),
    ]
    stream = prompt_samples(given, seed=3)
    found = list(stream)
    assert [(sample.id, sample.answer) for sample in found] == [("a", "Red."), ("d", "I do.")]
    assert found[0].question == "<image>\nDo what the picture says."
    pixels = np.asarray(read_image(found[0].images[0]))
    np.testing.assert_array_equal(pixels, render_prompt("Name a colour.", sample="a", seed=3).pixels)
    account = stream.account()
    assert account.keep.tolist() == [True, False, False, True]
    assert account.report.dropped == {"prompt that cannot be drawn": 2}
    assert "the prompt of 'b' is empty" in stream.problems["prompt that cannot be drawn"][0]
