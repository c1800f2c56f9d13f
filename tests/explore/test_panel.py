import ipywidgets
import numpy as np
import pytest
from matplotlib.figure import Figure

from lab.errors import LabError
from lab.explore.panel import Panel
from lab.explore.shown import sound, table, text


def counting(shown):
    def show(number, **rest):
        shown.append(number)
        if number == 3:
            raise LabError("number is 3; expected another")
        figure = Figure()
        figure.subplots().plot(range(number + 1))
        return [figure, f"<p>{number}</p>", sound(np.zeros(100), "<silence>")]

    return show


def panel(shown):
    return Panel({"number": ipywidgets.IntSlider(value=1, min=0, max=5)}, counting(shown))


def below(made):
    return made.children[1].children


def test_a_panel_shows_what_its_controls_ask_for_and_anew_when_one_changes():
    shown = []
    made = panel(shown)
    image, words, sound = below(made)
    assert bytes(image.value).startswith(b"\x89PNG")
    assert words.value == "<p>1</p>"
    assert "data:audio/wav;base64,UklGR" in sound.value  # "RIFF"
    assert "&lt;silence&gt;" in sound.value
    before = bytes(image.value)
    made.controls["number"].value = 4
    assert shown == [1, 4]
    assert bytes(below(made)[0].value) != before
    assert below(made)[1].value == "<p>4</p>"


def test_what_the_library_refuses_stands_in_the_panel_and_goes_when_it_is_mended():
    made = panel([])
    made.controls["number"].value = 3
    assert made.error == "number is 3; expected another"
    (message,) = below(made)
    assert "number is 3; expected another" in message.value
    made.controls["number"].value = 2
    assert made.error == ""
    assert len(below(made)) == 3


def test_any_other_error_is_raised():
    with pytest.raises(ZeroDivisionError):
        Panel({"number": ipywidgets.IntSlider(value=0)}, lambda number: [str(1 / number)])


def test_tables_and_texts_say_what_they_are_given_and_are_no_html():
    made = table([{"a": "<b>", "b": 1}, {"a": "x & y", "b": 2}])
    assert "&lt;b&gt;" in made
    assert "x &amp; y" in made
    assert made.count("<tr>") == 3
    assert table([]) == "<p>none</p>"
    assert text('"') == "&#34;"
