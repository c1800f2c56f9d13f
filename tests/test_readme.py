"""What the README tells people to type is understood."""

import ast
import re
import shlex
from typing import Any

import pytest
import typer

from lab import cli, paths

README = (paths.repository_root() / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    """Every `lab ...` in a fenced block or in backticks, as words; comments and shell dressing cut off."""
    lines = [line for _, block in BLOCKS for line in block.splitlines()]
    lines += re.findall(r"`(lab [a-z][^`]*)`", README)
    found = []
    for line in lines:
        plain = re.sub(r"\s#\s.*|\s#$|>>.*", "", line)
        for part in re.split(r"&&|;|\"\)", plain):
            match = re.search(r"(?:^|[\s/!])lab\s+([a-z].*)$", part)
            if match and " -> " not in part:
                found.append(shlex.split(match[1]))
    return found


def test_commands_are_found() -> None:
    names = {words[0] for words in commands()}
    assert {"reproduce", "status", "tables", "figures", "schedule", "unattended"} <= names


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


def test_python_examples_parse() -> None:
    examples = [block for language, block in BLOCKS if language == "python"]
    assert examples
    for example in examples:
        ast.parse("\n".join("pass" if line.startswith("!") else line for line in example.splitlines()))
