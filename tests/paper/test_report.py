import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab import paths
from lab.paper import tables
from lab.paper.report import log_entries, results, write_report
from tests.paper.fakes import GROWING_GAP, NAME, write_checkout, write_results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    write_checkout(root)
    monkeypatch.setattr(paths, "repository_root", lambda: root)
    (root / "ablations" / "LOG.md").write_text(
        f"# Log\n\nAn entry says things.\n\n## 2026-01-02 · {NAME}, rung cpu: a <b>gap</b>\n\n**What.** 12 cells.\n\n"
        f"## 2026-01-01 · other_study\n\nNot of this one.\n"
    )
    return root


def test_a_study_that_was_run_stands_with_verdict_table_figure_and_runs(checkout: Path) -> None:
    write_results(GROWING_GAP)
    tables.write_tables(NAME, "cpu")
    (checkout / "figures").mkdir(exist_ok=True)
    (checkout / "figures" / f"{NAME}.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'></svg>")
    page = write_report(checkout / "report.html").read_text()
    assert f'<h2 id="{NAME}">' in page
    assert re.search(r'class="verdict"><b>The claim\.</b> Holds: from n = 2 to n = 8', page)
    assert "CONV_GMLP, n = 2" in page
    assert 'src="data:image/svg+xml;base64,' in page
    assert "cells" in page
    assert "The log (1)" in page
    assert "a &lt;b&gt;gap&lt;/b&gt;" in page
    assert "Not of this one" not in page
    assert "written by `lab tables" not in page


def test_the_first_table_has_every_claim_with_its_rung_and_what_came_out(checkout: Path) -> None:
    write_results(GROWING_GAP)
    page = write_report(checkout / "report.html").read_text()
    assert "<td>no table yet: cpu" in page
    tables.write_tables(NAME, "cpu")
    page = write_report(checkout / "report.html").read_text()
    assert re.search(r"<td>cpu: The claim: <b>holds</b>", page)
    # Once above the figure, and not again below the table.
    study, _, _ = page.partition('<h2 id="paper">')
    assert study.count("<b>The claim.</b>") == 1
    assert "<strong>The claim.</strong>" not in study
    assert "<strong>Claim.</strong>" not in study


def test_a_claim_that_cannot_be_judged_yet_is_said_to_be_so(checkout: Path) -> None:
    write_results({("conv_gmlp", 2): 0.2})
    tables.write_tables(NAME, "cpu")
    page = write_report(checkout / "report.html").read_text()
    assert re.search(r"<td>cpu: The claim: <b>not judged yet</b>", page)


def test_a_study_that_was_not_run_says_so(checkout: Path) -> None:
    page = write_report(checkout / "report.html").read_text()
    assert "Not run: " in page
    assert "<td>not run: cpu" in page


def test_the_page_asks_no_server_for_anything(checkout: Path) -> None:
    write_results(GROWING_GAP)
    tables.write_tables(NAME, "cpu")
    page = write_report(checkout / "report.html").read_text()
    assert not re.search(r"(?:src|data|srcset|poster)\s*=\s*['\"](?!data:)", page)
    assert not re.search(r"<(?:script|link|iframe|object)\b|@import|url\(", page)
    # And where something did, the browser would not.
    assert "default-src 'none'" in page


def test_a_figure_that_is_old_is_named_at_the_top(checkout: Path) -> None:
    write_results(GROWING_GAP)
    tables.write_tables(NAME, "cpu")
    write_results(GROWING_GAP, seeds=(0, 1))
    page = write_report(checkout / "report.html").read_text()
    assert f"No longer what their runs measured, draw them anew: {NAME}.cpu.md" in page


def test_studies_stand_in_the_papers_order_with_their_rows_and_logs() -> None:
    page = results()
    assert re.findall(r'<h2 id="(\w+)">', page) == [
        *("baichuan_omni", "loss_filter", "loss_filter_images", "omni_alignment"),
        *("visual_encoder", "visual_projector", "anyres", "video_frames"),
        *("video_pretraining", "conv_gmlp_rate", "sft", "paper"),
    ]
    row = "<td>c_abstractor</td><td>C-Abstractor</td><td>projector = &#39;c_abstractor&#39;</td><td>yes</td>"
    assert row in page
    assert "<h4>2026-11-27 · visual_encoder, rung cpu" in page


def test_links_to_files_become_words_and_others_stay(checkout: Path) -> None:
    (checkout / "ablations" / "LOG.md").write_text(
        f"## 2026-01-02 · {NAME}\n\n[log](ablations/LOG.md), [paper](https://arxiv.org)\n"
    )
    assert '<p>log, <a href="https://arxiv.org">paper</a></p>' in results()


def test_entries_of_the_log_are_those_that_name_the_study(checkout: Path) -> None:
    (entry,) = log_entries(NAME)
    assert entry.startswith("## 2026-01-02")
    assert log_entries("study") == []
    (checkout / "ablations" / "LOG.md").write_text("# Log\n")
    assert log_entries(NAME) == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt install chromium")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, False), (1280, True)])
def test_the_page_fits_the_window_and_follows_light_and_dark(checkout: Path, width: int, dark: bool) -> None:
    write_results(GROWING_GAP)
    tables.write_tables(NAME, "cpu")
    page, shot = write_report(checkout / "report.html"), checkout / "page.png"
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    subprocess.run(
        [
            str(CHROMIUM),
            *QUIET,
            *scheme,
            f"--user-data-dir={checkout / 'browser'}",
            f"--window-size={width},1600",
            f"--screenshot={shot}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    pixels = np.asarray(Image.open(shot).convert("L"))
    assert pixels.shape[1] == width
    assert (np.median(pixels) < 64) == dark
    # Nothing but the page's own ground at the right edge: tables scroll in a box of their own.
    edge = pixels[:, -4:]
    assert np.mean(edge == np.median(edge)) > 0.99
