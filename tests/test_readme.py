"""What the README and the guide tell people to type is understood, and the README says what the tables say."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from lab import cli, paths

ROOT = paths.repository_root()
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))]
VERDICT = re.compile(r"^\*\*.+?\.\*\* .*?(Holds|Does not hold|Undecided)", re.MULTILINE)


def commands() -> list[list[str]]:
    """Every `lab ...` in a block that is no Python or in backticks, as words; comments and shell dressing cut off."""
    found = []
    for page in PAGES:
        blocks = re.findall(r"```([^\n]*)\n(.*?)```", page, re.DOTALL)
        lines = [line for language, block in blocks if language != "python" for line in block.splitlines()]
        lines += re.findall(r"`(lab [a-z][^`\n]*)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
        for line in lines:
            plain = re.sub(r"\s#\s.*|\s#$|>>.*", "", line)
            for part in re.split(r"&&|;", plain):
                match = re.search(r"(?:^|[\s/!])lab\s+([a-z].*)$", part)
                if match and " -> " not in part:
                    found.append(shlex.split(match[1]))
    return found


def test_commands_are_found() -> None:
    names = {words[0] for words in commands()}
    assert {"reproduce", "status", "adopt", "tables", "figures", "schedule", "unattended", "evaluate", "ask"} <= names


def context_of(words: list[str]) -> Any:
    """Have the command line read the words; raises what it would tell the user."""
    command: Any = typer.main.get_command(cli.app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    return command.make_context("lab", list(words)) if words else command  # the bare name is how prose speaks of one


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_and_its_options_exist(words: list[str]) -> None:
    if "NAME" not in words:
        context_of(words)


@pytest.mark.parametrize(
    "words", [["reproduce", "x", "--rugn", "cpu"], ["reprduce", "x"], ["schedule", "add", "anyres"]]
)
def test_a_command_that_does_not_exist_would_be_noticed(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"No such option|reprduce|Missing (argument|parameter)"):
        context_of(words)


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    ast.parse(example)
    exec(compile(example, "README.md", "exec"), {})
    assert "[2, 188, 1536]" in capsys.readouterr().out


def found() -> list[tuple[str, str, str]]:
    """Name, link and verdict of each line of the README's table of studies."""
    return re.findall(r"^\| \[(\w+)\]\((ablations/results/\S+)\) \|[^|]*\| ([^|]*) \|", README, re.MULTILINE)


def test_the_readme_has_a_line_for_every_study() -> None:
    assert sorted(name for name, _, _ in found()) == sorted(
        path.name.split(".")[0] for path in (ROOT / "ablations" / "results").glob("*.cpu.md")
    )


@pytest.mark.parametrize(("name", "link", "verdict"), found(), ids=lambda value: Path(value).name.split(".")[0])
def test_the_readme_says_the_verdict_of_the_table(name: str, link: str, verdict: str) -> None:
    table = (ROOT / link).read_text(encoding="utf-8")
    first = VERDICT.search(table)
    assert first is not None
    assert first[1] == verdict
    assert name in link


def test_the_readme_stays_a_front_page() -> None:
    assert len(README.splitlines()) <= 200
    for target in re.findall(r"\]\(([^)#\s]+)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
