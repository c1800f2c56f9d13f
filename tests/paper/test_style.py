import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from PIL import Image

from lab.explore.panel import Panel
from lab.paper import style
from lab.paper.style import OTHER_FONTS, paper_style, save


def make_font(path: Path, family: str, letters: str) -> Path:
    """A font whose letters are black squares as high as a line."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"letter{number}" for number in range(len(letters)))]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    font.setupGlyf(dict.fromkeys(names, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 50)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return path


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A machine with the fonts of matplotlib alone, and with those whose paths are put into the list."""
    own = [font for font in fontManager.ttflist if "mpl-data" in str(font.fname)]
    installed: list[str] = []
    monkeypatch.setattr(fontManager, "ttflist", own)
    monkeypatch.setattr(style, "findSystemFonts", lambda: installed)
    yield installed
    fontManager._findfont_cached.cache_clear()  # type: ignore[attr-defined]


def figure(name: str) -> Figure:
    with paper_style():
        made = Figure(figsize=(2, 1))
        axes = made.subplots()
        axes.barh(["conv", name], [1.0, 2.0])
    return made


def ink(path: Path) -> int:
    return int((np.asarray(Image.open(path).convert("L")) < 128).sum())


def test_letters_are_taken_from_a_font_of_the_machine(bare: list[str], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no font for 中 文"):
        _, without = save(figure("中文"), tmp_path / "without", {})
    bare.append(str(make_font(tmp_path / "han.ttf", OTHER_FONTS[1], "中文")))
    with warnings.catch_warnings(action="error"):
        _, png = save(figure("中文"), tmp_path / "han", {})
    assert ink(png) > ink(without)  # boxes are hollow
    with pytest.warns(UserWarning, match=r"^no font for 体: empty boxes"):
        save(figure("中文体"), tmp_path / "more", {})


def test_a_figure_without_such_letters_is_the_same_on_every_machine(bare: list[str], tmp_path: Path) -> None:
    with paper_style():
        before = [path.read_bytes() for path in save(figure("µ × é"), tmp_path / "one", {})]
    bare.append(str(make_font(tmp_path / "han.ttf", OTHER_FONTS[0], "中")))
    with paper_style():
        after = [path.read_bytes() for path in save(figure("µ × é"), tmp_path / "two", {})]
    assert after == before


def test_without_a_font_one_warning_names_the_letters_and_what_to_install(bare: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    bare.append(str(tmp_path / "broken.ttf"))
    with pytest.warns() as caught:
        Panel({}, lambda: [figure("文中\n中")])
    (warning,) = caught
    assert str(warning.message).startswith("no font for 中 文: empty boxes stand for them in the figure; install ")
    assert "fonts-noto-cjk" in str(warning.message)


def test_what_is_drawn_is_what_matplotlib_draws() -> None:
    drawn = []
    for look in (lambda made: None, lambda made: style.with_all_letters(made).__enter__()):
        made, written = figure("one"), io.BytesIO()
        look(made)
        made.savefig(written, format="png")
        drawn.append(written.getvalue())
    assert drawn[0] == drawn[1]
