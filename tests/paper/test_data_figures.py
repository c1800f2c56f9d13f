"""Figures 2, 4 and 5: what they say equals the components, by formulas of their own."""

import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from lab import paths
from lab.errors import LabError
from lab.paper.architecture import architecture
from lab.paper.figures import _names_facts, draw_figure, drawn, load_script
from lab.paper.style import paper_style, rounded, save
from lab.study import ablation
from lab.study.ablation import Row, load_ablation
from lab.training.stages import PAPER_STAGES
from tests.test_figures import ROOT

SHAPES, PIPELINE = (load_script(ROOT / "figures" / f"{name}.py") for name in ("paper_conv_gmlp", "paper_pipeline"))
NAMES = ("paper_architecture", "paper_pipeline", "paper_conv_gmlp")
D_AUDIO, D_VISION, D_LM = 1280, 1152, 3584


@pytest.fixture(scope="module")
def built() -> dict[str, Any]:
    return architecture()


@pytest.fixture(scope="module")
def shapes() -> dict[str, Any]:
    return SHAPES.facts()


@pytest.fixture(scope="module")
def facts(built: dict[str, Any], shapes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"paper_architecture": built, "paper_pipeline": PIPELINE.facts(), "paper_conv_gmlp": shapes}


def figure_of(name: str, facts: dict[str, dict[str, Any]]) -> Figure:
    with paper_style():
        return load_script(ROOT / "figures" / f"{name}.py").draw(facts[name])


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def siglip_parameters(width: int, inner: int, layers: int, patches: int, patch_size: int) -> int:
    """Patches and places, layers of attention, two norms and an MLP, and the last norm."""
    layer = 4 * (width * width + width) + 2 * 2 * width + width * inner + inner + inner * width + width
    return 3 * patch_size**2 * width + width + patches * width + layers * layer + 2 * width


def qwen_parameters(width: int, inner: int, layers: int, key_value: int, words: int) -> int:
    """Embedding and output layer, and of each layer: attention with biases on q, k, v, gated MLP, two norms."""
    attention = 2 * width * width + width + 2 * (width * key_value + key_value)
    return 2 * words * width + layers * (attention + 3 * width * inner + 2 * width) + width


def test_parameters_of_the_parts_follow_from_their_published_sizes(built: dict[str, Any]) -> None:
    count = {part: entry["parameters"] for part, entry in built.items()}
    assert count["vision_encoder"] == siglip_parameters(D_VISION, 4304, 27, 27 * 27, 14)
    assert count["language_model"] == qwen_parameters(D_LM, 18944, 28, 4 * 128, 152064)
    pooled = 4 * D_VISION * D_VISION + D_VISION
    mlp = D_VISION * D_LM + D_LM + D_LM * D_LM + D_LM
    assert count["visual_projector"] == count["video_projector"] == pooled + mlp
    block = 3 * (2 * D_AUDIO) ** 2 + 2 * 2 * D_AUDIO
    assert count["audio_projector"] == block + (2 * D_AUDIO + 1) * D_LM


def test_shapes_and_tokens_follow_from_the_papers_sizes(built: dict[str, Any]) -> None:
    side = 384 // 14
    assert built["vision_encoder"]["out"] == [side, side, D_VISION]
    assert built["visual_projector"]["out"] == [(side // 2) ** 2, D_LM]
    assert built["visual_projector"]["tokens_by_padding"] == {"none": 13 * 13, "both": 14 * 14, "columns": 13 * 14}
    assert built["video_projector"]["tokens_a_frame"] == {"whole": 13 * 13, "tiles": 3 * 13 * 13}
    assert (built["video_projector"]["frames_per_second"], built["video_projector"]["max_frames"]) == (1, 48)
    assert built["audio_encoder"]["in"] == [128, 30 * 100]
    assert built["audio_encoder"]["out"] == [30 * 50, D_AUDIO]
    assert built["audio_projector"]["out"] == [30 * 25, D_LM]


@pytest.mark.parametrize("rate", [2, 4, 8])
def test_every_layer_of_conv_gmlp_has_the_shape_and_size_of_the_papers_formula(
    shapes: dict[str, Any], rate: int
) -> None:
    found, wide = shapes["rates"][str(rate)], rate * D_AUDIO
    tokens = -(-1500 // rate)
    assert found["windows"] == [tokens, rate, D_AUDIO]
    assert found["padding_frames"] == tokens * rate - 1500
    for name, layer in found["layers"].items():
        assert layer["in"] == [tokens, wide]
        assert layer["out"] == [tokens, D_LM if name == "output_proj" else wide]
    assert found["block_parameters"] == 3 * wide**2 + 2 * wide
    assert found["parameters"] == 3 * wide**2 + 2 * wide + (wide + 1) * D_LM


def test_drawn_labels_are_the_numbers_of_the_components(facts: dict[str, dict[str, Any]]) -> None:
    said = "\n".join(labels(figure_of("paper_architecture", facts)))
    for text in ("27 × 27 × 1,152", "169 × 3,584", "1,500 × 1,280", "750 × 3,584", "507 with its tiles", "28 layers"):
        assert text in said
    assert f"{qwen_parameters(D_LM, 18944, 28, 512, 152064) / 1e9:.2f} B" in said
    shown = labels(figure_of("paper_conv_gmlp", facts))
    for rate in (2, 4, 8):
        wide, tokens = rate * D_AUDIO, -(-1500 // rate)
        assert f"{tokens:,} × {wide:,}" in shown
        assert f"{tokens:,} × {wide:,}, twice\n{2 * wide**2 / 1e6:.3g} M" in shown
        block, output = 3 * wide**2 + 2 * wide, (wide + 1) * D_LM
        assert f"{block / 1e6:.3g} M + {output / 1e6:.3g} M" in shown


def test_the_pipeline_shows_every_rate_that_is_known_and_says_not_found_of_the_others(
    facts: dict[str, dict[str, Any]],
) -> None:
    shown = labels(figure_of("paper_pipeline", facts))
    trained = [rate for stage in PAPER_STAGES.values() for rate in stage.learning_rates.values()]
    assert shown.count("lr 1e-3") == 1
    assert shown.count("lr 1e-5") == 2 + 3
    assert shown.count("lr 4e-6") == 1
    assert shown.count("lr not found") == trained.count(None) == 2 + 6 + 6
    assert shown.count("frozen") == sum(len(stage.frozen) for stage in PAPER_STAGES.values()) == 2 + 1 + 2 + 1
    assert shown.count("start: not found") == 2
    assert shown.count("cosine") == 1


def test_a_stage_without_a_column_is_refused(facts: dict[str, dict[str, Any]]) -> None:
    stages = facts["paper_pipeline"]["stages"]
    more = {**facts["paper_pipeline"], "stages": {**stages, "streaming": stages["sft"]}}
    with pytest.raises(LabError, match=r"no column for the stage streaming .* give it a place in ORDER"):
        figure_of("paper_pipeline", {"paper_pipeline": more})


def test_rows_of_ones_own_change_nothing_of_figure_5(shapes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    own = Row(key="mine", label="Mine", changes={"downsample_rate": 16}, main=False)
    monkeypatch.setattr(ablation, "read_own_rows", lambda name: (own,))
    assert "mine" in [row.key for row in load_ablation("conv_gmlp_rate").rows]
    assert list(SHAPES.facts()["rates"]) == list(shapes["rates"]) == ["2", "4", "8"]


@pytest.mark.parametrize(("rate", "text"), [(1e-3, "1e-3"), (4e-6, "4e-6"), (None, "not found")])
def test_rates_are_written_as_in_the_paper(rate: float | None, text: str) -> None:
    assert PIPELINE.shown_rate(rate) == text


@pytest.mark.parametrize(("count", "text"), [(7_615_616_512, "7.62 B"), (412_987_248, "413 M"), (5_120, "5.12 k")])
def test_counts_are_written_as_people_say_them(count: int, text: str) -> None:
    assert rounded(count) == text


@pytest.mark.parametrize("name", NAMES)
def test_no_words_lie_upon_each_other(name: str, facts: dict[str, dict[str, Any]]) -> None:
    figure = figure_of(name, facts)
    figure.savefig("/dev/null", format="png")
    places = [(text.get_text(), text.get_window_extent()) for text in figure.axes[0].texts if text.get_text()]
    for number, (one, place) in enumerate(places):
        assert place.x0 >= 0
        assert place.x1 <= figure.bbox.x1, one
        for other, beside in places[number + 1 :]:
            assert not place.overlaps(beside), (one, other)


PIPELINE_SCRIPT = ROOT / "figures" / "paper_pipeline.py"


def test_files_name_the_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "repository_root", lambda: tmp_path)
    svg, png = draw_figure(PIPELINE_SCRIPT)
    with Image.open(png) as image:
        description = image.text["Description"]
    for text in (svg.read_text(), description):
        assert _names_facts(PIPELINE.facts()) in text
        assert "no run of this project" in text


def test_a_rung_is_refused() -> None:
    with pytest.raises(LabError, match="figure 'paper_pipeline' shows components and data, which have no rung 'gpu'"):
        draw_figure(PIPELINE_SCRIPT, "gpu")


def test_the_figures_in_the_repository_are_of_these_facts() -> None:
    found = drawn(["paper_radars", *NAMES])
    assert {one.path.stem for one in found} == {"paper_radars", *NAMES}
    assert {one.state for one in found} == {"matches"}


@pytest.mark.parametrize("name", ["paper_radars", *NAMES])
def test_the_figures_in_the_repository_say_what_the_code_draws(name: str, tmp_path: Path) -> None:
    figure = load_script(ROOT / "figures" / f"{name}.py")
    with paper_style():
        svg, _ = save(figure.draw(figure.facts()), tmp_path / name, {})
    written = re.compile(r"<text[^>]*>([^<]*)</text>")
    said = written.findall(svg.read_text())
    assert len(said) > 30
    assert said == written.findall((ROOT / "figures" / f"{name}.svg").read_text())


def test_a_figure_of_other_facts_or_none_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "ablations").mkdir()
    script = (ROOT / "figures" / "paper_pipeline.py").read_text()
    (tmp_path / "figures" / "paper_pipeline.py").write_text(script)
    (tmp_path / "figures" / "paper_pipeline.svg").write_text("<svg>drawn from 0123456789abcdef</svg>")
    monkeypatch.setattr(paths, "repository_root", lambda: tmp_path)
    assert [one.state for one in drawn(["paper_pipeline"])] == ["no longer matches", "missing"]
    with pytest.raises(LabError, match="unknown figure 'paper_pie'"):
        drawn(["paper_pie"])
