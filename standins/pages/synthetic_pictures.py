"""Pictures made to be read, with questions and answers: pages, charts, and prompts drawn as pictures (section 3).

The paper trains on 130,000 synthetic OCR and chart samples. Everything streams; pictures are PNG files as bytes.
"""

import io
from collections.abc import Iterable, Iterator
from itertools import count as numbers

from jaxtyping import UInt8
from lab.data.vision_forms import IMAGE_MARK, Sample
from numpy import ndarray
from PIL import Image

from lab.data.filters.streamed import Dropped, Streamed, streamed
from lab.data.splits import Split
from lab.errors import LabError
from standins.pages.chart_questions import chart_questions
from standins.pages.chart_tables import ChartSettings, make_chart
from standins.pages.charts import render_chart
from standins.pages.page_questions import questions
from standins.pages.page_settings import PAGES, PageSettings
from standins.pages.rendered_prompts import QUESTION, PromptSettings, render_prompt
from standins.pages.rendered_text import Page, make_page, render

CHARTS, PROMPTS = ChartSettings(), PromptSettings()
TRANSCRIBE = {"en": "Write down the text of the page, line by line.", "zh": "请逐行写出页面上的文字。"}


def page_transcript(page: Page) -> str:
    """All text of a page, a row a line from the top, a label and its value apart by a blank."""
    return "\n".join(f"{entry.label} {entry.value}".strip() for entry in page.entries)


def page_samples(settings: PageSettings = PAGES["labelled"], *, seed: int, split: Split) -> Iterator[Sample]:
    """Yield without end, of each page its transcript first and then the question of one of its entries.

    Raises:
        LabError: as `make_page`.
    """
    for index in numbers():
        page = make_page(settings, seed=seed, index=index, split=split)
        picture = (png(render(page)),)
        asked = questions(page)
        one = asked[index % len(asked)]
        transcribe = f"{IMAGE_MARK}\n{TRANSCRIBE[settings.language]}"
        yield Sample(f"{page.id}-text", transcribe, page_transcript(page), images=picture)
        yield Sample(
            f"{page.id}-{one.kind}", f"{IMAGE_MARK}\n{one.text}", one.answer, images=picture, choices=one.choices
        )


def chart_samples(settings: ChartSettings = CHARTS, *, seed: int, split: Split) -> Iterator[Sample]:
    """Yield without end every question of one chart after the other.

    Raises:
        LabError: as `make_chart` and `render_chart`.
    """
    for index in numbers():
        chart = make_chart(settings, seed=seed, index=index, split=split)
        picture = (png(render_chart(chart)),)
        for one in chart_questions(chart):
            yield Sample(
                f"{chart.id}-{one.kind}", f"{IMAGE_MARK}\n{one.text}", one.answer, images=picture, choices=one.choices
            )


def prompt_samples(
    instructions: Iterable[tuple[str, str, str]], *, seed: int = 0, settings: PromptSettings = PROMPTS
) -> Streamed[Sample]:
    """Draw the prompt of each (id, prompt, answer) as a picture; the answer stays.

    Prompts that cannot be drawn (empty, too long, signs that no typeface has) are counted.
    """

    def make(instruction: tuple[str, str, str]) -> Sample:
        key, prompt, answer = instruction
        try:
            drawn = render_prompt(prompt, sample=key, seed=seed, settings=settings)
        except LabError as error:
            raise Dropped("prompt that cannot be drawn") from error
        return Sample(key, f"{IMAGE_MARK}\n{QUESTION[drawn.language]}", answer, images=(png(drawn.pixels),))

    parameters = {"width": settings.width, "max_height": settings.max_height, "seed": seed}
    return streamed(instructions, lambda one: one[0], make, name="prompt_samples", parameters=parameters)


def png(pixels: UInt8[ndarray, "height width 3"]) -> bytes:
    """The file of a picture, without loss; weakly compressed, because drawing is not to wait for it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
