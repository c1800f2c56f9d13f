"""`lab data build` and `lab data card`, and the recipes of this checkout."""

import json
import re
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lab import cli
from lab.data.fetch import packages
from lab.data.filters.filtering import Filtered
from lab.data.recipes.recipe import read_recipe
from lab.data.sample import Sample
from lab.data.sources import open_samples
from lab.paths import cache_dir, mlruns_dir, repository_root
from lab.training import sample_filters
from lab.training.sample_filters import SampleFilter
from tests.data.recipe_files import ALL_STEPS, planted_rows, toy_recipe, write_rows

RECIPES = sorted((repository_root() / "recipes").glob("*.toml"))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lab", "data", *arguments])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    return int(exited.value.code or 0)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    write_rows(tmp_path / "rows.jsonl", planted_rows(60))
    toy_recipe(tmp_path, ALL_STEPS.replace("num_samples = 40", "num_samples = 20"))
    return str(tmp_path / "toy.toml")


def test_a_recipe_is_planned_built_and_its_card_printed(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "build", recipe, "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "reading (s0)                    to do",
        "step 1 (not_empty)              to do, or in the cache",
    ]
    assert not mlruns_dir().exists()
    assert call(monkeypatch, "build", recipe, "--workers", "1") == 0
    printed, shown = capsys.readouterr()
    assert "reading: 100%" in shown
    assert "20 rows of 60; 40 dropped." in printed
    folder = mlruns_dir() / "data" / "toy"
    assert f"rows and card: {folder}" in printed
    assert sum(pq.read_table(path).num_rows for path in folder.glob("*.parquet")) == 20
    assert call(monkeypatch, "card", str(folder)) == 0
    assert capsys.readouterr().out.startswith("# toy\n")
    assert call(monkeypatch, "card", str(folder), "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 20


def test_a_users_mistake_is_one_line(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(recipe).write_text(Path(recipe).read_text().replace("not_empty", "notempty"))
    for arguments, message in [
        (
            ["build", recipe],
            "error: unknown 'use' of step 1 of recipe toy.toml: 'notempty' (did you mean 'not_empty'?)",
        ),
        (["build", "gone.toml"], "error: there is no recipe file gone.toml"),
        (["build", recipe, "--ray", "a:1"], "error: --ray is the address for --engine ray; give both"),
        (["card", "gone"], "error: gone has no card.json; expected a folder that `lab data build` made"),
    ]:
        assert call(monkeypatch, *arguments) == 2
        told = capsys.readouterr().err
        assert told.startswith(message)
        assert len(told.splitlines()) == 1


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_this_checkout_can_be_read(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert recipe.description.endswith(".")


@pytest.mark.slow
@pytest.mark.usefixtures("shared_packages")
def test_the_sft_recipe_feeds_every_medium_through_every_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judged: dict[str, Counter[str]] = {}

    def judge(name: str, samples: list[Sample], value: float) -> Filtered:
        judged[name] = Counter(one.source.partition(":")[0] for one in samples)
        return Filtered([one.id for one in samples], ["first", *[None] * (len(samples) - 1)], name=name)

    planted = {
        name: partial(SampleFilter, judge=partial(judge, name), value=1.0, state=lambda: "model 1")
        for name in sample_filters.SAMPLE_FILTERS
    }
    monkeypatch.setattr(sample_filters, "SAMPLE_FILTERS", planted)
    text = (repository_root() / "recipes" / "sft.toml").read_text(encoding="utf-8")
    (tmp_path / "sft.toml").write_text(re.sub(r"count = \d+", "count = 3", text), encoding="utf-8")
    assert call(monkeypatch, "build", str(tmp_path / "sft.toml"), "--workers", "1") == 0
    assert "rows and card" in capsys.readouterr().out
    whole = {"text": 6, "stills": 3, "spoken": 3, "quarters": 3, "transcripts": 3, "charts": 3, "drawn": 3, "speech": 3}
    assert judged["said"] == whole
    assert set(judged) == {"said", "hard", "known", "distinct"}
    assert set(judged["known"]) == {"text"}
    found, _ = open_samples("built:sft", "train", 0)
    assert len(found) == 27 - 4
    kinds = Counter(" ".join(part.type for part in one.content) for one in found)
    assert {"text", "image text", "image audio", "image text audio", "audio"} <= set(kinds)


TALK = """
categories: [talk]
conversations:
- [How are you?, I am well.]
- [How are you today?, I am well today., Good to hear.]
- [What is an AI?, A kind of program that is able to learn things from examples.]
- [what is an AI, A kind of program that is able to learn things from examples!]
- [Tell me all., {long}]
"""


def test_the_chatterbot_recipe_cleans_and_packs_its_conversations(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = packages()["chatterbot-corpus"]
    data = cache_dir() / "packages" / f"{package.name}-{package.version}" / "chatterbot_corpus" / "data"
    for language in ("english", "chinese"):
        (data / language).mkdir(parents=True)
    (data / "english" / "talk.yml").write_text(TALK.format(long="x" * 401), encoding="utf-8")
    (data / "chinese" / "talk.yml").write_text("conversations:\n- [你好吗, 我很好]\n", encoding="utf-8")
    assert call(monkeypatch, "build", str(repository_root() / "recipes" / "chatterbot.toml"), "--workers", "1") == 0
    assert "error" not in capsys.readouterr().err
    folder = mlruns_dir() / "data" / "chatterbot"
    rows = [row for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    # A pack begins with its longest sample.
    assert {(row["source"], row["answer"]) for row in rows} == {
        ("chatterbot", "I am well."),
        ("chatterbot", "I am well today."),
        ("chatterbot", "Good to hear."),
        ("chatterbot", "A kind of program that is able to learn things from examples."),
        ("chatterbot", "我很好"),
    }
    assert len(rows) == 5
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    # The source itself leaves out what differs in case and punctuation alone.
    assert card["sources"][0]["skipped"] == {"said before": 1}
    assert {step["use"]: sum(step["dropped"].values()) for step in card["steps"] if step["dropped"]} == {
        "length_between": 1
    }
