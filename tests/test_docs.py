"""The pages of docs/: what they tell people to type runs, and what is generated says what the repository says.

A block of bash or Python is run, a diff applied, a block with a title written to that file, in order, each page in a
copy of the checkout of its own. `<!-- not run: REASON -->` above a block leaves it out.
"""

import html
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from lab import paths
from lab.paper.report import results
from lab.paper.site import generated_pages, modules
from lab.study.ablation import ablation_files

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r'(?:<!-- not run: (.*?) -->\n)?```(\w+)(?: title="(.*?)")?\n(.*?)```', re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    reason: str
    """Why it is not run; empty where it is."""
    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*(group or "" for group in found.groups())) for found in BLOCK.finditer(page.read_text())]


EVERY = [block for page in PAGES for block in blocks(page)]


def test_blocks_that_are_not_run_say_why_and_are_the_fewer() -> None:
    fences = sum(page.read_text().count("```") for page in PAGES)
    assert fences == 2 * len(EVERY), "a fence that this test does not see"
    left_out = [block for block in EVERY if block.reason]
    assert len(left_out) == 10
    assert len(EVERY) - len(left_out) >= 15
    assert all(len(block.reason.split()) >= 4 for block in left_out)
    assert {block.language for block in EVERY} == {"bash", "python", "diff", "toml", "console"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that git knows or does not ignore."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("the checkout is copied by git")
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (source := ROOT / name).is_file():
            target = tmp_path / "checkout" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return tmp_path / "checkout"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("shared_packages")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(not b.reason and b.language != "console" for b in blocks(page))],
    ids=lambda p: p.stem,
)
def test_every_block_of_a_page_runs(page: Path, copy: Path, tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "lab").write_text(f'#!/bin/sh\nexec {sys.executable} -c "from lab.cli import main; main()" "$@"\n')
    (commands / "lab").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(copy),
        "OMNI_LAB_CHECKOUT": str(copy),
        "OMNI_LAB_MLRUNS": str(copy / "mlruns"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for block in blocks(page):
        if block.reason or block.language == "console":
            continue
        if block.language == "toml":
            (copy / block.title).write_text(block.text)
            continue
        command = {"bash": ["bash", "-e", "-s"], "python": [sys.executable, "-"], "diff": ["patch", "-p1"]}
        done = subprocess.run(
            command[block.language], input=block.text, cwd=copy, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("diff", [block for block in EVERY if block.language == "diff"], ids=lambda diff: diff.title)
def test_a_diff_fits_its_file(diff: Block, tmp_path: Path) -> None:
    if shutil.which("patch") is None:
        pytest.skip("patch is not installed")
    target = tmp_path / diff.title
    target.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / diff.title, target)
    done = subprocess.run(["patch", "-p1"], input=diff.text, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "fuzz" not in done.stdout
    assert "offset" not in done.stdout
    compile(target.read_text(), diff.title, "exec")


def test_every_module_has_a_page_and_every_ablation_a_place_on_the_one_page_of_results() -> None:
    pages = generated_pages()
    page = html.unescape(pages["results.md"])
    places = [page.index(f'<h2 id="{name}">') for name in ablation_files()]
    assert len(set(places)) == len(places)
    for path in (ROOT / "ablations" / "results").glob("*.cpu.md"):
        rows = [line.strip("| ").split(" | ") for line in path.read_text().splitlines() if line.startswith("| ")]
        for label, *cells in (row for row in rows[2:] if len(row) == len(rows[0])):
            assert f"<td>{label}</td>" in page
            assert all(f">{cell}</td>" in page for cell in cells)
    assert {f"reference/{name.replace('.', '/')}.md" for name in modules()} <= pages.keys()


def test_the_summary_says_of_every_verdict_what_the_written_table_says() -> None:
    sentence = re.compile(r"^\*\*(.+?)\.\*\* (Holds|Does not hold|Undecided|Not judged yet)", re.MULTILINE)
    summary, _, _ = results().partition("<h2")
    for path in (ROOT / "ablations" / "results").glob("*.md"):
        name, rung, _ = path.name.split(".")
        found = sentence.findall(path.read_text())
        assert found
        row = re.search(rf'<td><a href="#{name}">.*?</tr>', summary, re.DOTALL)
        assert row is not None
        for title, verdict in found:
            assert f"{rung}: {title}: <b>{verdict.lower()}</b>" in html.unescape(row[0])
        assert row[0].count(f"{rung}: ") == len(found)


class Links(HTMLParser):
    """What a page refers to, and what may be referred to in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors = {""}
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.targets.append(value)
            elif value and name in ("id", "name"):
                self.anchors.add(value)


def dead_links(site: Path) -> list[str]:
    """Links of a built site that lead to no file or to no anchor of it, those out of the site apart."""
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}  # for servers alone
    dead = set()
    for page, links in pages.items():
        for link in links.targets:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = Path(os.path.normpath(page.parent / unquote(parts.path))) if parts.path else page
            known = pages[target].anchors if target in pages else {"", parts.fragment}
            if not target.is_file() or unquote(parts.fragment) not in known:
                dead.add(f"{page.relative_to(site)}: {link}")
    return sorted(dead)


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "one.html").write_text('<h2 id="here"></h2><a href="two.html#there"></a><a href="#here"></a>')
    (tmp_path / "two.html").write_text('<a href="one.html#gone"></a><img src="no.svg"><a href="https://arxiv.org"></a>')
    assert dead_links(tmp_path) == ["one.html: two.html#there", "two.html: no.svg", "two.html: one.html#gone"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_site_builds_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMNI_LAB_CHECKOUT": str(paths.repository_root())}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(modules())
    host = r"""["'](?:https?:)?//"""
    linked = r"""<link[^>]+rel=["'](?:stylesheet|preconnect|icon)["'][^>]+href=""" + host
    fetched = re.compile(rf"<(?:script|img|iframe|source)[^>]+src={host}|{linked}|@import\s+url\({host}")
    for page in pages:
        assert not fetched.search(page.read_text()), page
    assert dead_links(tmp_path / "site") == []
