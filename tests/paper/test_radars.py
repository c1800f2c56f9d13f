import math
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from lab import paths
from lab.errors import LabError
from lab.paper.figures import _names_facts, draw_figure, load_script
from lab.paper.style import paper_style
from tests.paper.paper_tables import TEXT, printed, value
from tests.test_figures import ROOT

SCRIPT = ROOT / "figures" / "paper_radars.py"
RADARS = load_script(SCRIPT)
KINDS, MODELS, scaled, benchmarks, means = RADARS.KINDS, RADARS.MODELS, RADARS.scaled, RADARS.benchmarks, RADARS.means


@pytest.fixture
def figure() -> ModuleType:
    return RADARS


def test_the_scale_is_the_papers_formula_and_error_rates_are_turned_about() -> None:
    assert scaled({"a": 10.0, "b": 25.0, "c": 30.0}) == {"a": 10 / 30, "b": 25 / 30, "c": 1.0}
    assert scaled({"a": 10.0, "b": 25.0, "c": 30.0}, "lower") == {"a": 1.0, "b": 15 / 30, "c": 10 / 30}
    assert scaled({"alone": 3.0}) == {"alone": 1.0}


def test_a_scale_of_nothing_is_refused() -> None:
    with pytest.raises(LabError, match="runs from the worst to the best value, so it needs at least one"):
        scaled({})


def test_the_means_are_those_that_the_source_derived() -> None:
    found = means()
    for model in ("VITA", "Baichuan-Omni"):
        assert f"{model} {found['image'][model]:.3f}" in TEXT
    assert found["image"]["Qwen2-VL"] == 1
    for model in ("Qwen2-VL", "VITA"):
        assert f"{model} {found['video'][model]:.3f}" in TEXT
    assert found["video"]["Baichuan-Omni"] == 1
    assert found["audio"] == {}


def test_the_means_follow_from_the_copy_of_the_tables() -> None:
    def mean(model: str) -> float:
        places = [(n, column) for n in (2, 3) for row, column in printed(n) if row == model and column != "MME"]
        assert len(places) == 12
        return sum(value(n, model, column) for n, column in places) / 12

    means_of = {name: mean(MODELS[name]) for name in ("Qwen2-VL", "VITA", "Baichuan-Omni")}
    low, high = min(means_of.values()), max(means_of.values())
    expected = {name: (at - low + 10) / (high - low + 10) for name, at in means_of.items()}
    assert means()["image"] == pytest.approx(expected)


def test_the_left_radar_has_every_benchmark_and_a_gap_where_the_tables_have_none() -> None:
    every = benchmarks()
    assert [sum(b.kind == kind for b in every) for kind in KINDS] == [13, 6, 5]
    by_label = {" ".join(b.label.split()): b for b in every}
    assert by_label["MVBench"].values["Qwen2-VL"] == 64.4
    assert by_label["MSVD-QA"].values == {"Baichuan-Omni": 72.2, "Qwen2-VL": 61.1, "VITA": 63.9}
    assert by_label["WenetSpeech net, CER"].values == {"Baichuan-Omni": 7.1, "VITA": 12.2, "Qwen2-Audio": 11.3}
    assert by_label["Fleurs en"].values == {"Baichuan-Omni": 4.7, "Qwen2-Audio": 15.7}
    assert by_label["KeSpeech, mean"].values == {"Baichuan-Omni": 6.7, "Qwen2-Audio": 9.9}
    assert by_label["KeSpeech, mean"].scaled["Baichuan-Omni"] == 1


def test_the_curves_are_drawn_at_these_values(figure: ModuleType) -> None:
    with paper_style():
        left, right = figure.draw(figure.facts()).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in left.lines}
    assert set(lines) == set(MODELS)
    for model, drawn in lines.items():
        assert len(drawn) == 25
        assert drawn[0] == drawn[-1] or (math.isnan(drawn[0]) and math.isnan(drawn[-1]))
        for benchmark, at in zip(benchmarks(), drawn[:-1], strict=True):
            assert math.isnan(at) == (model not in benchmark.values)
            assert math.isnan(at) or at == benchmark.scaled[model]
    shown = {line.get_label(): line.get_ydata() for line in right.lines}
    assert set(shown) == {"Baichuan-Omni", "Qwen2-VL", "VITA"}
    assert list(shown["VITA"])[:2] == pytest.approx([0.474, 0.721], abs=0.0005)
    assert all(math.isnan(values[2]) for values in shown.values())


def test_the_files_name_the_facts_and_the_same_facts_give_the_same_bytes(
    figure: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "repository_root", lambda: tmp_path)
    svg, png = draw_figure(SCRIPT)
    assert [path.name for path in (svg, png)] == ["paper_radars.svg", "paper_radars.png"]
    with Image.open(png) as image:
        description = image.text["Description"]
    for text in (svg.read_text(), description):
        assert _names_facts(figure.facts()) in text
    first = svg.read_bytes(), png.read_bytes()
    monkeypatch.setattr(paths, "repository_root", lambda: tmp_path / "other")
    assert tuple(path.read_bytes() for path in draw_figure(SCRIPT)) == first


def test_a_rung_is_refused() -> None:
    with pytest.raises(LabError, match="figure 'paper_radars' shows components and data, which have no rung 'gpu'"):
        draw_figure(SCRIPT, "gpu")
