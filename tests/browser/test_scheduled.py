"""JupyterLab itself: the page that `make lab` opens, and a notebook that is scheduled from its menu."""

import re
import time

from tests.browser.workbench import ROWS, RUNG, STUDY

JOB_SECONDS = 180.0


def test_the_first_page_says_what_each_notebook_is_for(jupyter, page, screenshot):
    page.goto(f"{jupyter.url}?token={jupyter.token}")  # what stands in other tabs, an earlier session left there
    page.get_by_role("heading", name="To explore in").wait_for()
    page.locator(".jp-DirListing-item", has_text="explore_sweep.ipynb").wait_for()
    screenshot("lab_first_page")
    page.get_by_role("link", name="explore_packing").click()
    page.locator(".jp-Notebook:visible .jp-CodeCell").first.wait_for()
    # A kernel that is shut down while the page connects to it is an error in the server's log.
    page.get_by_text(re.compile(r"^Python 3.* \| Idle$")).first.wait_for()
    jupyter.shut_kernels()


def test_a_notebook_is_scheduled_from_the_menu_and_runs_to_its_end(jupyter, page, workbench, screenshot):
    """The job runs in a copy of the notebook's folder; what it runs is the checkout's study."""
    workbench.set_parameters("scheduled_sweep", study=STUDY, rung=RUNG, rows=",".join(ROWS), workers=1)
    before = {job["job_id"] for job in jupyter.ask("scheduler/jobs")["jobs"]}
    page.goto(f"{jupyter.url}lab/tree/notebooks/README.md?token={jupyter.token}&reset")
    # The page that opens is selected in the list once it is there; a job takes what is selected.
    page.get_by_role("heading", name="To explore in").wait_for()
    listed = page.locator(".jp-DirListing-item", has_text="scheduled_sweep.ipynb")
    listed.click()
    page.locator(".jp-DirListing-item.jp-mod-selected", has_text="scheduled_sweep.ipynb").wait_for()
    listed.click(button="right")
    page.locator(".lm-Menu-itemLabel", has_text="Create Job").click()
    page.get_by_role("button", name="Create", exact=True).wait_for()
    screenshot("scheduler_form")
    page.get_by_role("button", name="Create", exact=True).click()
    page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    until = time.monotonic() + JOB_SECONDS
    job = {"status": "CREATED"}
    # A job that has not begun is called stopped.
    while time.monotonic() < until and job["status"] not in ("COMPLETED", "FAILED"):
        page.wait_for_timeout(1000)
        job = next(one for one in [*jupyter.ask("scheduler/jobs")["jobs"], job] if one.get("job_id") not in before)
    screenshot("scheduler_jobs")
    assert job["status"] == "COMPLETED", job
    report = (workbench.mlruns / "unattended" / f"{STUDY}-{RUNG}.md").read_text()
    assert "2 cells: 2 done" in report


def test_nothing_went_wrong_in_the_servers_log(jupyter):
    words = jupyter.log.read_text()
    assert "Traceback" not in words
    assert "jupyter_scheduler | extension was successfully loaded" in words
    assert [line for line in words.splitlines() if line.startswith("[E ")] == []
