import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from lab import paths
from lab.errors import LabError
from lab.paper.figures import draw_figure, load_script
from lab.paper.measured import load_measured
from lab.paper.style import STYLES, paper_style, style_of
from lab.study.ablation import load_ablation, save_own_row
from tests.paper.fakes import GROWING_GAP, write_checkout, write_results

ROOT = Path(__file__).parent.parent
TWO_CELLS = {("conv_gmlp", 2): 0.2, ("mean_pool_mlp", 2): 0.3}
RATE_FIGURE = ROOT / "figures" / "conv_gmlp_rate.py"
FIGURES = sorted((ROOT / "figures").glob("[a-z]*.py"))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    write_checkout(root)
    monkeypatch.setattr(paths, "repository_root", lambda: root)
    return root


WITHOUT_RUNS = {"paper_radars.py", "paper_architecture.py", "paper_pipeline.py", "paper_conv_gmlp.py"}


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_every_figure_names_an_ablation_unless_it_shows_no_run(path: Path) -> None:
    figure = load_script(path)
    assert (ROOT / "ablations" / path.name).exists() != (path.name in WITHOUT_RUNS)
    assert hasattr(figure, "facts") == (path.name in WITHOUT_RUNS)
    assert callable(figure.draw)


def test_the_files_name_the_rung_and_the_runs(checkout: Path) -> None:
    ablation = write_results(GROWING_GAP)
    svg, png = draw_figure(RATE_FIGURE, "cpu")
    assert [svg.name, png.name] == ["conv_gmlp_rate.svg", "conv_gmlp_rate.png"]
    run_ids = load_measured(ablation, "cpu").results["run_id"]
    with Image.open(png) as image:
        description = image.text["Description"]
    for text in (svg.read_text(), description):
        assert all(run_id in text for run_id in run_ids)
    drawn = svg.read_text().split("</metadata>")[1]
    assert "Rung cpu: a small rung; not the paper's scale" in drawn
    assert "secondary source" in drawn
    assert "1.5B model" in drawn


def test_the_same_results_give_the_same_bytes(checkout: Path) -> None:
    write_results(TWO_CELLS)
    files = draw_figure(RATE_FIGURE, "cpu")
    first = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    assert [path.read_bytes() for path in draw_figure(RATE_FIGURE, "cpu")] == first


def test_a_smoke_figure_stays_beside_the_store_and_another_rung_has_its_own(checkout: Path) -> None:
    write_results(TWO_CELLS, rung="smoke")
    assert draw_figure(RATE_FIGURE, "smoke")[0].parent == paths.mlruns_dir() / "figures"
    assert not (checkout / "figures").exists()
    write_results(TWO_CELLS, rung="gpu")
    assert draw_figure(RATE_FIGURE, "gpu")[0] == checkout / "figures" / "conv_gmlp_rate.gpu.svg"


def test_lines_and_points_stand_at_the_measured_values(checkout: Path) -> None:
    measured = load_measured(write_results(GROWING_GAP), "cpu")
    with paper_style():
        ours, reported = load_script(RATE_FIGURE).draw(measured).axes
    of_row = measured.results.groupby("row")["test_character_error_rate"].mean() * 100
    heights = [list(container.lines[0].get_ydata()) for container in ours.containers]
    expected = [[of_row[f"{p}_{n}"] for n in (2, 4, 8)] for p in ("conv_gmlp", "mean_pool_mlp", "mean_pool_gmlp")]
    assert heights == [pytest.approx(values) for values in expected]
    assert list(reported.lines[0].get_ydata()) == pytest.approx([7.7])
    assert ours.get_ylim() != reported.get_ylim()


def test_missing_cells_leave_a_figure_of_what_is_there(checkout: Path) -> None:
    write_results({("conv_gmlp", 2): 0.2, ("conv_gmlp", 8): 0.3, ("mean_pool_mlp", 4): 0.3}, seeds=(1,))
    assert all(path.stat().st_size for path in draw_figure(RATE_FIGURE, "cpu"))


def test_rows_with_added_seeds_are_told_in_the_title(checkout: Path) -> None:
    measured = load_measured(write_results(GROWING_GAP, more_seeds={("conv_gmlp", 8): (3, 4, 5)}), "cpu")
    with paper_style():
        ours = load_script(RATE_FIGURE).draw(measured).axes[0]
    assert "3 to 6 seeds (small points)" in ours.get_title("left")


def test_no_results_are_named(checkout: Path) -> None:
    with pytest.raises(LabError, match="no results of 'conv_gmlp_rate' at rung 'gpu'"):
        draw_figure(RATE_FIGURE, "gpu")


def test_a_newcomers_row_is_drawn_and_so_is_a_second_row_of_the_same_projector_and_rate(checkout: Path) -> None:
    ablation = load_ablation("conv_gmlp_rate")
    newcomers = (
        ("max_pool_mlp_2", "Max pooling, n = 2", {"projector": "max_pool_mlp"}),
        ("slow", "Conv-GMLP, slowly", {"out_of_domain_corpus": "a"}),
        ("twin", "CONV_GMLP, n = 2", {"out_of_domain_corpus": "b"}),
    )
    for key, label, changes in newcomers:
        save_own_row(ablation, key, label, changes)
        ablation = load_ablation("conv_gmlp_rate")
    measured = load_measured(write_results(TWO_CELLS), "cpu")
    own = measured.results[measured.results["row"] == "conv_gmlp_2"]
    heights = {"max_pool_mlp_2": 0.31, "slow": 0.32, "twin": 0.33}
    added = [own.assign(row=row, test_character_error_rate=height) for row, height in heights.items()]
    measured = replace(measured, results=pd.concat([measured.results, *added]))
    with paper_style():
        ours = load_script(RATE_FIGURE).draw(measured).axes[0]
    drawn = {container.get_label(): list(container.lines[0].get_ydata()) for container in ours.containers}
    assert {name: drawn[name] for name in ("Max pooling", "Conv-GMLP, slowly", "CONV_GMLP (twin)")} == {
        "Max pooling": [pytest.approx(31)],
        "Conv-GMLP, slowly": [pytest.approx(32)],
        "CONV_GMLP (twin)": [pytest.approx(33)],
    }
    assert len(drawn) == 5


def test_a_row_without_an_error_rate_is_refused(checkout: Path) -> None:
    measured = load_measured(write_results(TWO_CELLS), "cpu")
    results = measured.results.assign(test_character_error_rate=float("nan"))
    with paper_style(), pytest.raises(LabError, match=r"row .conv_gmlp_2. .* has no test_character_error_rate"):
        load_script(RATE_FIGURE).draw(replace(measured, results=results))


def test_no_two_series_look_alike_however_many_there_are() -> None:
    many = [style_of(at) for at in range(len(STYLES) ** 2)]
    assert len({(one.colour, one.marker) for one in many}) == len(many)
    assert many[: len(STYLES)] == list(STYLES)


def test_every_look_differs_in_colour_marker_and_line() -> None:
    for part in ("colour", "marker", "line"):
        assert len({str(getattr(look, part)) for look in STYLES}) == len(STYLES)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("target", "rung"), [("study", "cpu"), ("smoke", "smoke")])
def test_make_reproduces_then_tabulates_then_draws(target: str, rung: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
    steps = [f"lab {command} conv_gmlp_rate --rung {rung}" for command in ("reproduce", "tables", "figures")]
    places = [done.stdout.index(step) for step in steps]
    assert places == sorted(places)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_clean_leaves_results_and_runs() -> None:
    done = subprocess.run(["make", "-n", "clean"], cwd=ROOT, capture_output=True, text=True, check=True)
    removed = " ".join(line for line in done.stdout.splitlines() if line.startswith("rm"))
    assert ".venv" in removed
    assert "mlruns" not in done.stdout
    assert "results" not in done.stdout
