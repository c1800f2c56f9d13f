import shutil
import textwrap
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from lab import cli, paths
from lab.errors import LabError
from lab.evaluation.statistics import bootstrap_interval
from lab.paper.figures import load_script
from lab.paper.measured import Measured, load_measured
from lab.paper.row_figure import footnote, row_scores, score_column, stars
from lab.paper.style import GREY, STYLES, paper_style
from lab.study.ablation import load_ablation, save_own_row
from tests.paper.answers import CHANCE, KINDS, REPOSITORY, write_answers, write_study

STUDIES = ("video_pretraining", "video_frames", "visual_encoder", "anyres", "visual_projector")
TOKENS = {"mlp": 36.0, "mean_pool": 9.0, "concat": 9.0, "c_abstractor": 9.0}
FEW = {"staged": 0.62, "direct": 0.55, "text_only": 0.43}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    for name in STUDIES:
        write_study(root, name)
    monkeypatch.setattr(paths, "repository_root", lambda: root)
    return root


def script(name: str) -> ModuleType:
    return load_script(REPOSITORY / "figures" / f"{name}.py")


def measure(name: str, *, every_row: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> Measured:
    rows = [row.key for row in load_ablation(name).rows if row.main or every_row]
    accuracies = {row: 0.56 + 0.004 * at for at, row in enumerate(rows)}
    return load_measured(write_answers(name, accuracies, seeds=seeds, tokens=TOKENS), "cpu")


def drawn(name: str, measured: Measured) -> Figure:
    with paper_style():
        figure: Figure = script(name).draw(measured)
        FigureCanvasAgg(figure).draw()
    return figure


def texts(figure: Figure) -> list[Text]:
    """Those that are seen: tick labels beyond an axis are drawn nowhere."""
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    beyond = set()
    for axes in (axes for part in (figure, *figure.findobj(Figure)) for axes in part.axes):
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not min(low, high) <= tick.get_loc() <= max(low, high):
                    beyond |= {tick.label1, tick.label2}
    return [text for text in found if text not in beyond]


def of_figure(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


def with_longer_labels(measured: Measured) -> Measured:
    ablation = measured.ablation
    rows = tuple(replace(row, label=f"{row.label}, in words that take more than one line") for row in ablation.rows)
    return replace(measured, ablation=replace(ablation, rows=rows))


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("case", ["three seeds", "one seed", "long labels", "every row"])
def test_no_text_lies_on_another_or_is_cut_off(checkout: Path, name: str, case: str) -> None:
    measured = measure(name, every_row=case == "every row", seeds=(0,) if case == "one seed" else (0, 1, 2))
    figure = drawn(name, with_longer_labels(measured) if case == "long labels" else measured)
    # Not text.get_window_extent(): an annotation's holds its line as well.
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts(figure)]
    assert len(boxes) > 8
    # Long labels may not squeeze what they name; the paper's panel is the narrowest.
    widths = [axes.get_window_extent().width / figure.dpi for axes in figure.axes]
    assert min(widths) > 0.9
    assert widths[0] > 2.5
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text
    for (one, first), (other, second) in combinations(boxes, 2):
        apart = first.x1 <= second.x0 or second.x1 <= first.x0 or first.y1 <= second.y0 + 1 or second.y1 <= first.y0 + 1
        assert apart, (one, other)


@pytest.mark.parametrize("name", STUDIES)
def test_the_command_draws_files_that_name_their_results(
    checkout: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = measure(name)
    (checkout / "figures").mkdir()
    shutil.copy(REPOSITORY / "figures" / f"{name}.py", checkout / "figures")
    monkeypatch.setattr("sys.argv", ["lab", "figures", name])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    svg = (checkout / "figures" / f"{name}.svg").read_text()
    assert (checkout / "figures" / f"{name}.png").stat().st_size
    assert all(run_id in svg for run_id in measured.results["run_id"])
    assert "Rung cpu: a small rung" in svg


def test_points_are_means_in_percent_and_bars_the_error_interval_turned_about(checkout: Path) -> None:
    measured = load_measured(write_answers("video_pretraining", FEW), "cpu")
    scores = row_scores(measured)
    assert [score.key for score in scores] == list(FEW)
    for score in scores:
        own = measured.utterances[measured.utterances["row"] == score.key]
        right = 100 * (1 - own.groupby("seed")["wrong_answers"].mean())
        error = bootstrap_interval(measured.utterances, score.key, metric="error_rate")
        assert score.seeds == pytest.approx(list(right))
        assert score.mean == pytest.approx(right.mean())
        assert (score.low, score.high) == pytest.approx((100 - 100 * error.high, 100 - 100 * error.low))
        assert score.low < score.mean < score.high
    ours = drawn("video_pretraining", measured).axes[0]
    points = [container.lines[0] for container in ours.containers]
    assert [point.get_xdata()[0] for point in points] == pytest.approx([score.mean for score in scores])
    assert [point.get_ydata()[0] for point in points] == [3, 2, 1]


def test_baselines_and_controls_are_grey_and_contenders_are_not(checkout: Path) -> None:
    measured = measure("video_pretraining")
    ours = drawn("video_pretraining", measured).axes[0]
    colours = [container.lines[0].get_color() for container in ours.containers]
    assert colours == [STYLES[0].colour] * 2 + [GREY] * 4


@pytest.mark.parametrize("name", STUDIES)
def test_chance_is_a_dashed_line_and_said(checkout: Path, name: str) -> None:
    figure = drawn(name, measure(name))
    dashed = [line for line in figure.axes[0].lines if line.is_dashed() and line.get_color() == GREY]
    along = [line.get_ydata() if name == "visual_projector" else line.get_xdata() for line in dashed]
    assert [list(values) for values in along] == [pytest.approx([100 * CHANCE] * 2)]
    assert f"dashed: chance, {100 * CHANCE:.1f}%" in of_figure(figure)


def test_results_without_chance_are_drawn_without_its_line(checkout: Path) -> None:
    measured = measure("visual_encoder")
    measured = replace(measured, results=measured.results.drop(columns="test_chance"))
    assert "chance" not in of_figure(drawn("visual_encoder", measured))


def test_the_papers_numbers_are_stars_on_an_axis_of_their_own(checkout: Path) -> None:
    figure = drawn("anyres", measure("anyres"))
    ours, reported = figure.axes
    assert list(reported.lines[0].get_xdata()) == pytest.approx([72.61, 87.48, 47.54, 62.80, 76.92, 78.44])
    assert [line.get_marker() for line in reported.lines] == ["*"]
    assert "*" not in [line.get_marker() for line in ours.lines]
    said = " ".join(of_figure(figure).split())
    assert "of another model and other test sets (secondary: third-party reading notes" in said


def test_a_row_with_several_numbers_is_shown_test_set_by_test_set(checkout: Path) -> None:
    ablation = load_ablation("anyres")
    labels = [label for label, _ in stars(ablation, ablation.columns[0])]
    sets = ("DocVQA", "InfographicVQA", "OCRBench")
    assert labels == [f"{name}: {row}" for name in sets for row in ("fixed resolution", "AnyRes, four tiles")]


def test_where_nothing_was_found_there_is_no_panel_and_it_is_said(checkout: Path) -> None:
    figure = drawn("visual_projector", measure("visual_projector"))
    assert len(figure.axes) == 1
    assert "The paper's numbers: not found." in of_figure(figure)
    ablation = load_ablation("video_pretraining")
    bare = replace(ablation, reported=())
    measured = replace(measure("video_pretraining"), ablation=bare)
    assert "The paper's numbers: not found." in of_figure(drawn("video_pretraining", measured))
    assert "fixed 384 px, 64 frames" in footnote(ablation, ablation.columns[0])
    frames = load_ablation("video_frames")
    some = footnote(frames, frames.columns[0])
    assert some.endswith("Not found: 8 frames; 16 frames; 32 frames; 48 frames.")


def test_the_interval_of_one_seed_says_what_it_is_over(checkout: Path) -> None:
    said = of_figure(drawn("visual_encoder", measure("visual_encoder", seeds=(0,))))
    assert "1 seed (small points), 95% intervals over groups of questions alone" in said


def test_the_heat_map_holds_the_accuracy_of_every_kind_and_chance_beneath(checkout: Path) -> None:
    rows = {**FEW, "staged_from_image_projector": 0.6}  # no main row
    measured = load_measured(write_answers("video_pretraining", rows), "cpu")
    heat = drawn("video_pretraining", measured).axes[-1]
    numbers = {tuple(int(at) for at in text.get_position()): text.get_text() for text in heat.texts}
    for at, row in enumerate(rows):
        for column, kind in enumerate(KINDS):
            own = measured.utterances[(measured.utterances["row"] == row) & (measured.utterances["task"] == kind)]
            assert numbers[column, at] == f"{100 - 100 * own['wrong_answers'].mean():.0f}"
    assert [numbers[column, len(rows)] for column in range(9)] == [f"{100 / n:.0f}" for n in KINDS.values()]
    assert len(numbers) == 9 * (len(rows) + 1)
    assert heat.get_xticklabels()[2].get_text() == "came\nfirst\n(20)"


def test_projectors_of_like_cost_stand_side_by_side_about_it(checkout: Path) -> None:
    measured = measure("visual_projector")
    axes = drawn("visual_projector", measured).axes[0]
    places = {container.get_label(): container.lines[0].get_xdata()[0] for container in axes.containers}
    labels = {row.key: row.label for row in measured.ablation.rows}
    at = {row: places[textwrap.fill(labels[row], 22)] for row in TOKENS}
    assert len(set(places.values())) == len(TOKENS)
    assert all(abs(at[row] / 9 - 1) < 0.15 for row in ("mean_pool", "concat", "c_abstractor"))
    assert abs(at["mlp"] / 36 - 1) < 0.15


@pytest.mark.parametrize("name", STUDIES)
def test_a_row_of_ones_own_is_drawn_with_the_others(checkout: Path, name: str) -> None:
    save_own_row(load_ablation(name), "mine", "A row of my own", {"weight_decay": 0.5})
    figure = drawn(name, measure(name, every_row=True))
    assert "A row of my own" in of_figure(figure).replace("\n", " ")


def test_a_row_without_what_is_drawn_is_refused(checkout: Path) -> None:
    measured = measure("visual_projector")
    results = measured.results.copy()
    results.loc[results["row"] == "mlp", "test_accuracy"] = float("nan")
    with pytest.raises(LabError, match="row 'mlp' of 'visual_projector', seed 0, 1, 2, has no test_accuracy"):
        drawn("visual_projector", replace(measured, results=results))
    results = measured.results.drop(columns="visual_tokens_per_question")
    with pytest.raises(LabError, match="has no visual_tokens_per_question in its results at rung 'cpu'"):
        drawn("visual_projector", replace(measured, results=results))


def test_numbers_of_other_measures_are_said_to_stand_elsewhere(checkout: Path) -> None:
    ablation = load_ablation("anyres")
    other = replace(ablation.reported[0], metric="test_loss", value=0.5)
    said = footnote(replace(ablation, reported=(*ablation.reported, other)), ablation.columns[0])
    assert said.endswith("The paper's numbers of other measures (test_loss) stand in the table alone.")


def test_a_study_without_a_counted_column_is_refused(checkout: Path) -> None:
    measured = measure("visual_encoder")
    columns = tuple(replace(column, interval="") for column in measured.ablation.columns)
    with pytest.raises(LabError, match="'visual_encoder' declares none"):
        score_column(replace(measured, ablation=replace(measured.ablation, columns=columns)))
