"""What the README tells people to type is understood."""

import ast
import re
import shlex

import click
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


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_and_its_options_exist(words: list[str]) -> None:
    command: click.Command = typer.main.get_command(cli.app)
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    if "NAME" not in words:
        command.make_context("lab", list(words), resilient_parsing=False)


def test_python_examples_parse() -> None:
    examples = [block for language, block in BLOCKS if language == "python"]
    assert len(examples) >= 2
    for example in examples:
        ast.parse("\n".join("pass" if line.startswith("!") else line for line in example.splitlines()))
