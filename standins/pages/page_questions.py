"""Questions about a rendered page that only its reader can answer, each with a short answer and choices.

Whoever does not see the page is at chance, exactly: the answer and its alternatives come from one distribution, and the
answer's place among the choices is uniform. Alternatives are other values of the same page as far as there are enough,
so that knowing what stands on the page is not enough either. (Who compares the questions of one page without seeing it
learns which values are on it: give a model one question at a time.)
"""

from collections.abc import Mapping

from lab.errors import LabError
from standins.drawn import Question, offered
from standins.pages.page_values import draw_values
from standins.pages.rendered_text import Page, page_generator

# One purpose of a page's random numbers; the paper's grain is another.
_CHOICES = 2

WORDING: Mapping[str, Mapping[str, str]] = {
    "en": {
        "beside": "What stands beside {label}?",
        "line": "What is written on line {line}?",
        "page": "What is written on the page?",
    },
    "zh": {"beside": "{label}旁边写着什么？", "line": "第{line}行写着什么？", "page": "页面上写着什么？"},
}
TRANSCRIBE = {"en": "Write down the text of the page, line by line.", "zh": "请逐行写出页面上的文字。"}


def questions(page: Page, *, num_choices: int = 4) -> tuple[Question, ...]:
    """Ask once for every entry: by its label if it has one, else by its line, counted from 1 at the top.

    Raises:
        LabError: fewer than two choices, or too few values in the page's split for so many.
    """
    if num_choices < 2:
        raise LabError(f"a question has {num_choices} choices, expected at least 2")
    asked = []
    for row, entry in enumerate(page.entries):
        kind = "beside" if entry.label else "line" if len(page.entries) > 1 else "page"
        text = WORDING[page.settings.language][kind].format(label=entry.label, line=row + 1)
        asked.append(Question(kind, text, _choices(page, row, num_choices), entry.value))
    return tuple(asked)


def transcript(page: Page) -> str:
    """All text of a page, a row a line from the top, a label and its value apart by a blank."""
    return "\n".join(f"{entry.label} {entry.value}".strip() for entry in page.entries)


def _choices(page: Page, row: int, count: int) -> tuple[str, ...]:
    rng = page_generator(page.seed, page.index, page.split, _CHOICES, row)
    on_page = [entry.value for entry in page.entries]
    answer = on_page.pop(row)
    # A label is never a value of its own page, so as a choice it would give itself away.
    taken = [answer, *on_page, *(entry.label for entry in page.entries)]
    others = [on_page[i] for i in rng.permutation(len(on_page))[: count - 1]]
    others += draw_values(
        page.kind,
        rng,
        count=count - 1 - len(others),
        split=page.split,
        language=page.settings.language,
        length=page.settings.value_length,
        apart_from=taken,
    )
    return offered(rng, answer, others)
