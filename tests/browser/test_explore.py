"""Every notebook to explore in, in JupyterLab: it runs, nothing fails, and what is moved changes what is seen."""

import pytest

from tests.browser.workbench import LONG_ROW, ROWS, RUNG, STUDY, write_scores


@pytest.fixture
def opened(jupyter, page):
    """Open a notebook of the workbench and run it all."""

    def open_and_run(name):
        notebook = jupyter.open(page, f"notebooks/{name}.ipynb")
        notebook.run_all()
        assert notebook.errors() == []
        return notebook

    yield open_and_run
    jupyter.shut_kernels()


def test_packs_change_with_the_budget(opened, workbench, screenshot):
    notebook = opened("explore_packing")
    before = notebook.pictures()
    notebook.push_slider("budget (tokens)", times=40)
    assert len(notebook.wait_for_other(before)) == len(before)
    screenshot("explore_packing")
    notebook.checkbox("leak: take the pack for one text").check()
    notebook.page.get_by_text("packing certificate FAILED").first.wait_for()
    screenshot("explore_packing_leak")
    assert notebook.errors() == []


def test_tiles_and_frames_change_with_their_sliders(opened, screenshot):
    notebook = opened("explore_vision")
    before = notebook.pictures()
    notebook.push_slider("tiles", times=4)
    after = notebook.wait_for_other(before)
    notebook.control("tiles").scroll_into_view_if_needed()
    screenshot("explore_vision_tiles")
    # The film is longer than 8 s: at most 8 frames are shown of it, whatever a second has.
    notebook.push_slider("at most", key="ArrowLeft")
    notebook.wait_for_other(after)
    screenshot("explore_vision_frames")
    assert notebook.errors() == []


def test_what_is_kept_changes_with_the_threshold_and_a_choice_becomes_a_row(opened, workbench, screenshot, tmp_path):
    workbench.set_parameters("explore_loss_filter", scores=str(write_scores(tmp_path / "scores")))
    notebook = opened("explore_loss_filter")
    before = notebook.pictures()
    notebook.push_slider("k (sigma)", times=5)  # 1.25, which no row has
    notebook.wait_for_other(before)
    screenshot("explore_loss_filter")
    notebook.checkbox("hear the prompts").check()
    notebook.page.locator("audio").nth(7).wait_for()
    notebook.page.locator("audio").first.scroll_into_view_if_needed()
    screenshot("explore_loss_filter_heard")
    notebook.control("row").locator("input").fill("Wider than the paper's")
    notebook.page.get_by_role("button", name="save as a row").click()
    notebook.page.get_by_text("run it:").wait_for()
    screenshot("explore_loss_filter_saved")
    assert "Wider than the paper's" in (workbench.root / "ablations" / "loss_filter.rows.toml").read_text()
    assert notebook.errors() == []


def test_an_utterance_is_heard_through_the_projector_that_is_chosen(opened, workbench, screenshot):
    workbench.set_parameters("explore_projectors", study=STUDY, rung=RUNG)
    notebook = opened("explore_projectors")
    before = notebook.pictures()
    notebook.choose_option("rate", 1)
    after = notebook.wait_for_other(before)
    screenshot("explore_projectors")
    notebook.choose_option("utterance", 1)
    notebook.wait_for_other(after)
    assert notebook.page.locator("audio").count() == 1
    assert notebook.errors() == []


def test_a_sweep_is_started_followed_while_it_trains_and_stopped(opened, workbench, screenshot):
    workbench.set_parameters(
        "explore_sweep", study=STUDY, rung=RUNG, rows=",".join([*ROWS, LONG_ROW]), workers=1, seconds=1.0
    )
    notebook = opened("explore_sweep")
    page = notebook.page
    page.get_by_text("3 cells: 2 done, 1 missing; the sweep is not running from here").wait_for()
    before = notebook.pictures()
    screenshot("explore_sweep_before")
    page.get_by_title("start", exact=True).click()
    page.get_by_text("3 cells: 2 done, 1 running; the sweep is running").wait_for()
    notebook.wait_for_other(before)
    screenshot("explore_sweep_training")
    page.get_by_title("stop", exact=True).click()
    page.get_by_text("3 cells: 2 done, 1 killed; the sweep is not running from here").wait_for()
    screenshot("explore_sweep_stopped")
    assert notebook.errors() == []


def test_another_split_and_another_draw_are_heard(opened, workbench, screenshot):
    workbench.set_parameters("explore_corpora", corpora=[f"hub:{workbench.root.parent / 'speech'}"])
    notebook = opened("explore_corpora")
    before = notebook.pictures()
    notebook.choose_option("split", 0)
    notebook.wait_for_other(before)
    said = notebook.page.locator(".widget-html", has=notebook.page.locator("audio"))
    first = said.all_inner_texts()
    notebook.push_slider("draw", times=1)
    notebook.page.wait_for_timeout(2000)
    assert said.all_inner_texts() != first
    screenshot("explore_corpora")
    assert notebook.errors() == []
