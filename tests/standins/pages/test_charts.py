import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from standins.pages.chart_questions import CHART_QUESTIONS, chart_questions
from standins.pages.charts import CHART_TABLES, NUM_LEVELS, make_chart, render_chart

KINDS = sorted(CHART_TABLES)


def charts(kind, count, seed=0, split="train"):
    return [make_chart([kind], seed=seed, index=index, split=split) for index in range(count)]


def answered(chart, question):
    """The answer by hand, from the words of the question and the table."""
    text, row = question.text, chart.values[0]
    for start in ("For ", "By "):
        if text.startswith(start):
            name, _, text = text.removeprefix(start).partition(": ")
            row = chart.values[chart.series.index(name)]
    value = dict(zip(chart.categories, row, strict=True))
    words = text.rstrip("?").split()
    if text.startswith("What is the value of "):
        return str(value[words[-1]])
    if text.startswith("Which has the largest"):
        return max(value, key=value.get)
    if text.startswith("Which has the smallest"):
        return min(value, key=value.get)
    if text.startswith("How much larger is"):
        return str(value[words[4]] - value[words[6]])
    if text.startswith("How many values are above"):
        return str(sum(v > int(words[-1]) for v in value.values()))
    if text.startswith("Which has the larger value, "):
        return max((words[-3], words[-1]), key=value.get)
    if text.startswith("Does it rise or fall"):
        first, *_, last = value.values()
        return "rise" if last > first else "fall"
    assert text.startswith("What do the parts of ")
    place = chart.categories.index(words[5])
    return str(sum(column[place] for column in chart.values))


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_follows_from_the_table_and_is_one_of_different_choices(kind):
    for chart in charts(kind, 30):
        only = {"total": "stacked_bar", "trend": "line"}
        asked = chart_questions(chart, list(CHART_QUESTIONS))
        assert {one.kind for one in asked} == {one for one in CHART_QUESTIONS if only.get(one, kind) == kind}
        assert chart_questions(chart) == tuple(one for one in asked if one.kind != "trend")
        for one in asked:
            assert one.answer == answered(chart, one)
            assert one.answer in one.choices
            assert len(set(one.choices)) == len(one.choices) == (2 if one.kind in ("comparison", "trend") else 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_chart_and_its_questions_are_a_pure_function_of_seed_index_and_split(kind):
    (chart,) = charts(kind, 1)
    (again,) = charts(kind, 1)
    assert chart == again
    assert chart_questions(chart) == chart_questions(again)
    others = [*charts(kind, 1, seed=1), *charts(kind, 1, split="test"), charts(kind, 2)[1]]
    assert len({one.id for one in [chart, *others]}) == 4
    assert all((one.categories, one.values) != (chart.categories, chart.values) for one in others)


@pytest.mark.parametrize("kind", KINDS)
def test_values_can_be_read_and_never_tie(kind):
    for chart in charts(kind, 50):
        assert len(chart.categories) >= 4
        assert len(set(chart.categories) | set(chart.series)) == len(chart.categories) + len(set(chart.series))
        for row in chart.values:
            assert len(set(row)) == len(row) == len(chart.categories)
            if not chart.printed:
                assert all(value % chart.step == 0 and 0 < value <= NUM_LEVELS * chart.step for value in row)
        if kind == "pie":
            assert sum(chart.values[0]) == 100
            assert min(chart.values[0]) >= 6
        if kind == "stacked_bar":
            totals = np.sum(chart.values, axis=0)
            assert len(set(totals.tolist())) == len(totals)
            assert chart.printed


def test_the_answer_of_a_question_is_at_each_place_equally_often():
    places = Counter()
    for chart in charts("bar", 400):
        for one in chart_questions(chart):
            if one.kind != "comparison":
                places[one.choices.index(one.answer)] += 1
    # 2,000 in four places: a deviation is 19.
    assert max(abs(count - 500) for count in places.values()) < 100


def test_kinds_take_turns():
    found = [make_chart(list(CHART_TABLES), seed=0, index=index, split="dev").kind for index in range(12)]
    assert found == list(CHART_TABLES) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_chart_is_drawn_at_its_size_the_same_again_and_clear_of_its_edges(kind):
    (chart,) = charts(kind, 1, seed=5)
    pixels = render_chart(chart)
    assert pixels.shape == (chart.height, chart.width, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, render_chart(chart))
    # What touches an edge is cut off there.
    assert all((edge == 255).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    other = replace(chart, values=(tuple(reversed(chart.values[0])), *chart.values[1:]))
    assert (render_chart(other) != pixels).any()


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_of_a_chart_overlaps_another(kind, monkeypatch):
    """Every text's box, as matplotlib lays it out, against every other's, over some charts of the kind."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    drawn = []
    draw = FigureCanvasAgg.draw

    def remembering(canvas):
        draw(canvas)
        texts = [text for text in canvas.figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
        drawn.append([(text, text.get_window_extent()) for text in texts])

    monkeypatch.setattr(FigureCanvasAgg, "draw", remembering)
    for chart in charts(kind, 2, seed=7):
        render_chart(replace(chart, width=384, height=320))
        boxes = [(text, box) for text, box in drawn[-1] if not text.get_rotation()]
        assert len(boxes) >= 8
        for place, (text, box) in enumerate(boxes):
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= 384
            assert box.y1 <= 320
            for other, its in boxes[:place]:
                across = min(box.x1, its.x1) - max(box.x0, its.x0)
                up = min(box.y1, its.y1) - max(box.y0, its.y0)
                # Boxes are as high as the font's tallest sign: two pixels of them are air.
                assert across <= 1 or up <= 2, (text.get_text(), other.get_text(), chart.id)


@pytest.mark.slow
def test_drawing_heeds_no_settings_of_the_user_and_opens_no_window(tmp_path):
    (tmp_path / "matplotlibrc").write_text("backend: TkAgg\nfont.size: 30\naxes.facecolor: black\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.standins.pages.test_charts import charts\n"
        "from standins.pages.charts import render_chart; import hashlib\n"
        "print(hashlib.sha256(render_chart(charts('bar', 1)[0]).tobytes()).hexdigest())\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'tkinter' not in sys.modules\n"
    )
    import hashlib
    import os

    root = os.getcwd()
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"} | {"PYTHONPATH": root}
    command = [sys.executable, "-c", code, root]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(render_chart(charts("bar", 1)[0]).tobytes()).hexdigest()
