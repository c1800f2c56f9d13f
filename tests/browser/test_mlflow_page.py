"""MLflow's page of a study that was run: found by name, its cells below it, what they made to look at, and compared."""

import re

import pytest

from lab.paper.report import run_address
from lab.study import store
from tests.browser.workbench import RUNG, STUDY


@pytest.fixture
def runs(page, mlflow_page):
    """The table of runs, at the address that `make mlflow` prints."""
    page.goto(mlflow_page)
    page.get_by_text(f"{STUDY} ({RUNG})", exact=True).first.wait_for()
    return page


def expand(page):
    """Show the cells below their study, where they are folded away."""
    if not page.get_by_text("conv_gmlp_2, seed 0", exact=True).count():
        page.locator(".ag-row [class*=expander], .ag-row button").first.click()
    page.get_by_text("conv_gmlp_2, seed 0", exact=True).first.wait_for()


def test_cells_stand_below_their_study_by_names_that_a_person_understands(runs, screenshot):
    expand(runs)
    for name in ("conv_gmlp_2, seed 0", "conv_gmlp_4, seed 0"):
        assert runs.get_by_text(name, exact=True).first.is_visible()
    screenshot("mlflow_runs")
    assert not runs.get_by_text("Judges", exact=True).is_visible()  # of applications, which nobody has here


def test_a_run_that_the_report_links_to_is_found(page, mlflow_page, workbench):
    (cell, *_) = runs_of(workbench)
    page.goto(run_address(mlflow_page.partition("/#")[0], cell.run_id))
    page.get_by_role("tab", name="Artifacts").wait_for()
    page.get_by_text(cell.run_id, exact=True).first.wait_for()


def test_a_cells_notebook_and_figures_can_be_looked_at(runs, screenshot):
    expand(runs)
    runs.get_by_text("conv_gmlp_2, seed 0", exact=True).first.click()
    runs.get_by_role("tab", name="Artifacts").click()
    runs.get_by_text("figure-1.png", exact=True).click()
    # Whatever it is drawn with: a picture as large as none of the page's own.
    runs.wait_for_function(
        """() => [...document.querySelectorAll('img, image, canvas')]
            .some(one => one.getBoundingClientRect().width > 300)"""
    )
    screenshot("mlflow_figure")
    runs.get_by_text("notebook.html", exact=True).click()
    frame = runs.frame_locator("iframe").last
    frame.get_by_role("heading", level=1).first.wait_for()
    screenshot("mlflow_notebook")


def test_two_cells_are_compared(runs, mlflow_page, workbench, screenshot):
    cells = [run.run_id for run in runs_of(workbench)]
    address = f"{mlflow_page.partition('/#')[0]}/#/compare-runs?runs={cells!r}&experiments=['1']".replace(
        "'", "%22"
    ).replace(" ", "")
    runs.goto(address)
    runs.get_by_text("test_character_error_rate").first.wait_for()
    runs.get_by_text(re.compile("^Comparing 2 Runs")).first.wait_for()
    screenshot("mlflow_compare")


def runs_of(workbench):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNI_LAB_MLRUNS", str(workbench.mlruns))
        return [run for run in store.read_runs() if run.tags.get("kind") == "cell" and run.status == "FINISHED"]
