from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lab.data.splits import SPLITS, split_of
from lab.errors import LabError
from standins.pages.fonts import TYPEFACES, sized_font, typefaces_for
from standins.pages.page_values import VALUES, characters, draw_values, words
from standins.pages.rendered_text import MARGIN, PAGES, Entry, PageSettings, make_page, questions, render

LATIN = typefaces_for("en")
# Hinting lets the digits of these jump over a height; they are then one pixel lower.
JUMPS = {("stix", 5), ("stix", 8), ("stix", 10), ("stix", 13)}


@pytest.fixture
def chinese(user_cache_dir, monkeypatch):
    """The Chinese typeface from the user's cache, where it was fetched once."""
    if not list((user_cache_dir / "packages").glob("fonts-wqy-microhei-*")):
        pytest.skip("fonts-wqy-microhei is not in the cache; `lab.data.fetch.fetch` brings it")
    monkeypatch.setenv("OMNI_LAB_CACHE", str(user_cache_dir))
    sized_font.cache_clear()


def ink_of(page):
    return (render(page) != np.array(page.paper, dtype=np.uint8)).any(-1)


def box(mask):
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return rows[0], rows[-1], columns[0], columns[-1]


def strings_alone(page):
    """The page once for every string on it, with nothing else."""
    for entry in page.entries:
        if entry.label:
            yield replace(page, entries=(replace(entry, value=""),))
        yield replace(page, entries=(replace(entry, label=""),))


def pages_of(name, count, split="train", seed=0):
    return [make_page(PAGES[name], seed=seed, index=index, split=split) for index in range(count)]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_is_a_pure_function_of_seed_index_and_split(name, request):
    if PAGES[name].language == "zh":
        request.getfixturevalue("chinese")
    page = make_page(PAGES[name], seed=3, index=7, split="test")
    again = make_page(PAGES[name], seed=3, index=7, split="test")
    assert page == again
    assert page.id == again.id
    assert questions(page) == questions(again)
    assert (render(page) == render(again)).all()
    assert render(page).shape == (page.height, page.width, 3)
    assert render(page).dtype == np.uint8
    others = [{"seed": 4, "index": 7, "split": "test"}, {"seed": 3, "index": 8, "split": "test"}]
    for other in [*others, {"seed": 3, "index": 7, "split": "train"}]:
        assert make_page(PAGES[name], **other).entries != page.entries
        assert make_page(PAGES[name], **other).id != page.id


@pytest.mark.parametrize("name", sorted(PAGES))
def test_text_lies_wholly_on_the_page_and_never_overlaps(name, request):
    if PAGES[name].language == "zh":
        request.getfixturevalue("chinese")
    for page in pages_of(name, 25):
        whole = np.zeros((page.height, page.width), dtype=int)
        for alone in strings_alone(page):
            mask = ink_of(alone)
            top, bottom, left, right = box(mask)
            assert top >= MARGIN
            assert left >= MARGIN
            assert bottom < page.height - MARGIN
            assert right < page.width - MARGIN
            # A string's box, with a column of paper on both sides, holds nothing of another string.
            whole[top : bottom + 1, left - 1 : right + 2] += 1
        assert whole.max() == 1
        assert (ink_of(page) <= (whole > 0)).all()
        baselines = [entry.baseline for entry in page.entries]
        assert baselines == sorted(baselines)


def test_entries_use_the_whole_page():
    boxes = np.array([box(ink_of(page)) for page in pages_of("easy", 300)])
    assert boxes[:, 0].min() < 16
    assert boxes[:, 1].max() > 240
    assert boxes[:, 2].min() < 16
    assert boxes[:, 3].max() > 240


@pytest.mark.parametrize("typeface", LATIN)
def test_digits_are_as_high_as_asked(typeface):
    for height in (5, 6, 7, 8, 9, 10, 12, 13, 14, 20, 33):
        settings = PageSettings(typefaces=(typeface,), text_height=(height, height), labels=False, num_entries=(1, 1))
        page = make_page(settings, seed=0, index=0, split="train")
        page = replace(page, width=900, entries=(Entry("", "0123456789", 20, 20, 100),))
        top, bottom, left, _ = box(ink_of(page))
        assert bottom - top + 1 == height - ((typeface, height) in JUMPS)
        assert 20 <= left <= 20 + height / 4


def test_characters_are_as_high_as_asked(chinese):
    for height in (8, 10, 12, 16, 24):
        page = make_page(replace(PAGES["chinese"], text_height=(height, height)), seed=0, index=0, split="train")
        top, bottom, _, _ = box(ink_of(replace(page, entries=(Entry("", "国", 20, 20, 100),))))
        assert bottom - top + 1 == height


def test_every_sign_of_a_language_is_in_its_typefaces(chinese):
    # A missing sign is drawn as one and the same box.
    for name, typeface in TYPEFACES.items():
        font = sized_font(name, 24)
        missing = bytes(font.getmask("\ufffe"))
        signs = "0123456789abcdefghijklmnopqrstuvwxyz" + (characters() if "zh" in typeface.languages else "")
        drawn = {sign: bytes(font.getmask(sign)) for sign in signs}
        assert missing not in drawn.values()
        assert len(set(drawn.values())) == len(signs)


def test_values_of_the_splits_are_disjoint_and_decided_by_their_hash():
    for name in ("easy", "labelled", "words"):
        values = {s: {e.value for page in pages_of(name, 150, s) for e in page.entries} for s in SPLITS}
        assert all(split_of(value) == split for split in SPLITS for value in values[split])
        assert not values["train"] & values["test"]
        assert not values["train"] & values["dev"]
        assert not values["dev"] & values["test"]


def test_labels_are_shared_by_all_splits():
    shared = {entry.label for page in pages_of("labelled", 100, "test") for entry in page.entries}
    assert {split_of(label) for label in shared} == set(SPLITS)


def test_a_page_keeps_the_name_that_it_always_had():
    page = make_page(PAGES["easy"], seed=1, index=2, split="dev")
    assert page.id == "805c792b-dev-1-2"


def test_questions_ask_for_every_entry_once():
    for name, kind in (("labelled", "beside"), ("lines", "line"), ("easy", "page")):
        for page in pages_of(name, 20):
            asked = questions(page)
            assert [q.answer for q in asked] == [entry.value for entry in page.entries]
            assert {q.kind for q in asked} == {kind}
            assert len({q.text for q in asked}) == len(asked)
            for question in asked:
                assert len(set(question.choices)) == 4
                assert question.answer in question.choices
    page = make_page(PAGES["labelled"], seed=0, index=0, split="train")
    assert questions(page)[0].text == f"What stands beside {page.entries[0].label}?"
    page = make_page(PAGES["lines"], seed=0, index=0, split="train")
    assert questions(page)[1].text == "What is written on line 2?"


def test_other_values_of_the_page_are_among_the_choices():
    page = next(page for page in pages_of("labelled", 50) if len(page.entries) >= 4)
    on_page = {entry.value for entry in page.entries}
    assert all(set(question.choices) <= on_page for question in questions(page))


def test_chinese_pages_are_asked_about_in_chinese(chinese):
    page = make_page(PAGES["chinese"], seed=0, index=0, split="train")
    assert questions(page)[0].text == f"{page.entries[0].label}旁边写着什么？"
    assert {entry.label for entry in page.entries} <= set(words("zh"))


@cache
def text_only_pages(name):
    return pages_of(name, 800, "test")


GUESSES = {
    "the first": lambda question: 0,
    "the last": lambda question: 3,
    "the smallest": lambda question: min(range(4), key=lambda i: question.choices[i]),
    "the longest": lambda question: max(range(4), key=lambda i: len(question.choices[i])),
    "the one most like the others": lambda question: max(
        range(4),
        key=lambda i: sum(a == b for c in question.choices for a, b in zip(c, question.choices[i], strict=False)),
    ),
    "what shares letters with the label": lambda question: max(
        range(4), key=lambda i: len(set(question.choices[i]) & set(question.text))
    ),
}


@pytest.mark.parametrize("guess", sorted(GUESSES))
@pytest.mark.parametrize("name", ["easy", "labelled", "words"])
def test_a_guess_from_the_text_alone_is_at_chance(guess, name):
    # One question a page; four standard errors of a share of a quarter.
    asked = [questions(page)[0] for page in text_only_pages(name)]
    right = sum(question.choices[GUESSES[guess](question)] == question.answer for question in asked)
    assert abs(right / 800 - 0.25) < 4 * (0.25 * 0.75 / 800) ** 0.5


def nearest_template_accuracy(pages, reduction):
    """Share of middle digits of three whose nearest among 2,000 others, on pages averaged down, is the same digit."""
    crops = []
    for page in pages:
        (entry,) = page.entries
        grey = (render(page)[..., 0].astype(float) - page.ink[0]) / (page.paper[0] - page.ink[0])
        small = np.pad(grey, 16, constant_values=1.0)
        small = small.reshape(len(small) // reduction, reduction, -1, reduction).mean((1, 3))
        font = sized_font(page.typeface, page.text_height)
        middle = entry.value_left + font.getlength(entry.value[0]) + font.getlength(entry.value[1]) / 2
        row, column = (entry.baseline - 8 + 16) // reduction, round((middle - 4 + 16) / reduction)
        crops.append(small[row : row + 8 // reduction, column : column + 8 // reduction].ravel())
    digits = np.array([page.entries[0].value[1] for page in pages])
    templates, probes = np.array(crops[:2000]), np.array(crops[2000:])
    nearest = ((templates**2).sum(1) - 2 * probes @ templates.T).argmin(1)
    return (digits[nearest] == digits[2000:]).mean()


def test_digits_are_told_at_full_size_and_not_when_the_page_is_reduced():
    # The small pages, because they are drawn in a quarter of the time; their text is the same.
    pages = pages_of("easy_small", 2300)
    full, half, quarter = (nearest_template_accuracy(pages, reduction) for reduction in (1, 2, 4))
    assert full > 0.9
    assert 1 - half > 2.5 * (1 - full)
    assert quarter < 0.45


def test_too_few_values_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(LabError, match=r"only \d+ different values of kind 'word', .* are in split test, expected 99"):
        draw_values("word", rng, count=99, split="test")
    with pytest.raises(LabError, match="unknown kind of value 'prime'"):
        draw_values("prime", np.random.default_rng(0), count=1, split=None)


def test_words_of_another_language_are_refused():
    with pytest.raises(LabError, match="unknown language of words 'fr'; choose one of: en, zh"):
        words("fr")


def test_fonts_that_cannot_be_had_are_named(monkeypatch):
    with pytest.raises(LabError, match="unknown typeface 'arial'"):
        sized_font("arial", 10)
    with pytest.raises(LabError, match=r"font No\.ttf is not at .*mpl-data.*expected a matplotlib that ships it"):
        replace(TYPEFACES["stix"], file="No.ttf").path()


def test_values_are_uniform_in_every_place():
    rng = np.random.default_rng(0)
    drawn = [VALUES["number"](rng, "en", 4) for _ in range(4000)]
    for place in range(4):
        counts = np.bincount([int(value[place]) for value in drawn], minlength=10)
        # 99.9% of chi-squared with nine degrees of freedom is below 27.9.
        assert ((counts - 400) ** 2 / 400).sum() < 27.9


def test_words_of_both_languages_are_pairs():
    assert len(words("en")) == len(words("zh")) == len(set(words("en"))) == len(set(words("zh")))
    assert words("zh")[words("en").index("cat")] == "猫"
