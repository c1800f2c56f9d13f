"""Steps give over shards what they give over the whole corpus at once."""

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.data.filters.filtering import LeftOut
from lab.data.filters.loss_filters import LOSS_COLUMNS, LOSS_FILTERS, RANDOM, Losses, filter_losses
from lab.data.filters.near_duplicates import NearDuplicates
from lab.data.filters.quality import Quality
from lab.data.filters.semantic_duplicates import SemanticDuplicates
from lab.data.hub import SampleReading
from lab.data.instructions.instructions import COLUMNS, instruction, read_instruction_table
from lab.data.recipes import sources as recipe_sources
from lab.data.recipes.recipe import check_recipe, read_recipe
from lab.data.recipes.run import build
from lab.data.sample import Sample, Text
from lab.errors import LabError
from tests.data.recipe_files import toy_recipe, write_rows
from tests.data.tiny_encoder import write_tiny_encoder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def sentences(count: int) -> list[dict[str, Any]]:
    """Every third row says an earlier one again, with one word changed."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(3, 7))) for _ in range(400)]
    rows: list[dict[str, Any]] = []
    for number in range(count):
        said = rng.choices(words, k=14)
        if number % 3 == 2:
            said = [*rng.choice(rows)["answer"].split()[:-1], "else"]
        rows.append({"id": f"r{number}", "prompt": "say", "answer": " ".join(said)})
    return rows


def test_near_duplicates_are_those_that_the_filter_finds_over_all_rows_at_once(tmp_path: Path) -> None:
    rows = sentences(90)
    write_rows(tmp_path / "rows.jsonl", rows)
    steps = '[[step]]\nuse = "near_duplicates"\nthreshold = 0.6\ncolumns = ["answer"]\nnum_permutations = 32\n'
    out, card = build(toy_recipe(tmp_path, steps, shard_rows=20), workers=1)
    whole = NearDuplicates(threshold=0.6, columns=("answer",), num_permutations=32).apply(pa.Table.from_pylist(rows))
    assert [row["id"] for row in rows_of(out)] == [
        row["id"] for row, keep in zip(rows, whole.keep, strict=True) if keep
    ]
    assert card["dropped"] == whole.num_dropped > 15


def test_a_text_of_nothing_cannot_be_compared_and_is_named(tmp_path: Path) -> None:
    write_rows(
        tmp_path / "rows.jsonl", [{"id": name, "prompt": "", "answer": text} for name, text in (("a", "b"), ("c", " "))]
    )
    steps = '[[step]]\nuse = "near_duplicates"\nthreshold = 0.6\ncolumns = ["answer"]\n'
    with pytest.raises(
        LabError,
        match=r"step 1 .*: the text of sample 'c' is empty; a step not_empty "
        r"before it drops such",
    ):
        build(toy_recipe(tmp_path, steps), workers=1)
    with pytest.raises(LabError, match=r"'threshold' of step 1 \(near_duplicates\) of recipe toy\.toml is 1\.5: input"):
        toy_recipe(tmp_path, steps.replace("threshold = 0.6", "threshold = 1.5"))


def write_scores(path: Path, rows: list[dict[str, Any]], losses: np.ndarray) -> None:
    names = [row["id"] for row in rows]
    count = len(names)
    columns = [names, losses, losses * 1.05, [3] * count, [2] * count]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, LOSS_COLUMNS, strict=True)], schema=LOSS_COLUMNS)
    # In another order than the rows, and with scores of rows that are not there.
    more = table.slice(0, 1).set_column(0, "id", pa.array(["another"]))
    pq.write_table(pa.concat_tables([more, table.take(np.arange(count)[::-1])]), path, row_group_size=7)


@pytest.mark.parametrize("name", [*LOSS_FILTERS, RANDOM])
def test_losses_are_filtered_as_over_all_rows_at_once(tmp_path: Path, name: str) -> None:
    rows = sentences(60)
    losses = np.random.default_rng(1).gamma(2.0, 1.0, 60)
    write_rows(tmp_path / "rows.jsonl", rows)
    write_scores(tmp_path / "scores.parquet", rows, losses)
    steps = f'[[step]]\nuse = "loss_filter"\nscores = "scores.parquet"\nfilter = "{name}"\nk = 0.8\nseed = 5\n'
    out, card = build(toy_recipe(tmp_path, steps, shard_rows=20), workers=1)
    whole = filter_losses(Losses([row["id"] for row in rows], losses, losses * 1.05), name, k=0.8, seed=5)
    assert [row["id"] for row in rows_of(out)] == [
        row["id"] for row, keep in zip(rows, whole.keep, strict=True) if keep
    ]
    assert card["steps"][0]["dropped"] == dict(whole.dropped)
    assert (name in ("none", "ifd")) == (card["dropped"] == 0)


def test_other_scores_are_another_step_and_missing_ones_are_told(tmp_path: Path) -> None:
    rows = sentences(40)
    losses = np.linspace(1, 3, 40)
    write_rows(tmp_path / "rows.jsonl", rows)
    steps = '[[step]]\nuse = "loss_filter"\nscores = "scores.parquet"\n'
    recipe = toy_recipe(tmp_path, steps)
    with pytest.raises(LabError, match=r"scores\.parquet holds no losses; expected a Parquet file, or a folder"):
        check_recipe(recipe)
    write_scores(tmp_path / "scores.parquet", rows, losses)
    _, first = build(recipe, workers=1)
    write_scores(tmp_path / "scores.parquet", rows, losses**2)
    _, second = build(recipe, workers=1)
    assert [card["steps"][0]["cached"] for card in (first, second)] == [False, False]
    assert first["steps"][0]["parameters"] == second["steps"][0]["parameters"]
    write_scores(tmp_path / "scores.parquet", rows[:-3], losses[:-3])
    with pytest.raises(
        LabError,
        match=r"sample 'r37' has no loss in .*scores\.parquet, as have 2 "
        r"others; run `lab score`",
    ):
        build(recipe, workers=1)
    write_scores(tmp_path / "scores.parquet", rows, np.where(np.arange(40) == 7, np.nan, losses))
    with pytest.raises(
        LabError,
        match=r"step 1 \(loss_filter\): the loss of sample 'r7' is nan; "
        r"expected a finite number",
    ):
        build(recipe, workers=1)
    write_scores(tmp_path / "scores.parquet", rows, np.ones(40))
    with pytest.raises(LabError, match=r"step 1 \(loss_filter\): all 40 losses are equal"):
        build(recipe, workers=1)
    for changes, message in [
        ("k = -1", "step 1 (loss_filter) of recipe toy.toml is -1: input should be greater"),
        ('filter = "gausian"', "step 1 (loss_filter) of recipe toy.toml: unknown loss filter 'gausian' (did you mean"),
    ]:
        with pytest.raises(LabError, match=re.escape(message)):
            toy_recipe(tmp_path, steps + changes + "\n")


def fake_reading(name: str, *, limit: int | None = None, revision: str | None = None) -> SampleReading:
    reading = SampleReading(name, "MIT", {"toy-corpus": "c0ffee"}, iter(()))

    def stream() -> Any:
        for number in range(limit or 25):
            yield instruction(
                id=f"{name}-{number}", prompt=f"p{number}", answer="a", source=name, group=f"g{number % 3}"
            )
        reading.left_out["said before"] = ["a", "b", "c", "d"]

    reading.samples = stream()
    return reading


def test_instructions_are_a_source_whose_own_omissions_are_in_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_sources, "read_instructions", fake_reading)
    (tmp_path / "toy.toml").write_text(
        'shard_rows = 10\n[[source]]\nname = "talk"\nfrom = "instructions"\ncorpus = "chats"\n'
        '[[step]]\nuse = "not_empty"\n'
    )
    out, card = build(read_recipe(tmp_path / "toy.toml"), workers=1)
    assert [row["id"] for row in rows_of(out)] == [f"chats-{number}" for number in range(25)]
    assert pq.read_schema(out / "shard-00000.parquet").names == COLUMNS.names
    (source,) = card["sources"]
    assert source["licence"] == "MIT"
    assert source["versions"] == ["chats: toy-corpus c0ffee"]
    assert source["skipped"] == {"said before": 4}
    assert "| 4 said before |" in (out / "README.md").read_text()


def test_what_is_built_reads_as_samples_again_with_their_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = (Text("Be kind.", "system"), Text("Hi"))
    talk = Sample(id="a", content=turns, answer="Hello", source="s", group="g", task="instruct")
    reading = SampleReading("chats", "MIT", {}, iter(()))
    monkeypatch.setattr(recipe_sources, "read_instructions", lambda name, **_: replace(reading, samples=iter([talk])))
    (tmp_path / "toy.toml").write_text(
        '[[source]]\nname = "talk"\nfrom = "instructions"\ncorpus = "chats"\n[[step]]\nuse = "not_empty"\n'
    )
    out, _ = build(read_recipe(tmp_path / "toy.toml"), workers=1)
    assert list(read_instruction_table(out / "shard-00000.parquet", LeftOut())) == [talk]


def test_an_unknown_source_of_instructions_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    text = '[[source]]\nname = "a"\nfrom = "instructions"\ncorpus = "chaterbot"\n'
    with pytest.raises(
        LabError,
        match=r"source 1 \(instructions\) of recipe toy\.toml: unknown "
        r"source of instructions 'chaterbot'",
    ):
        toy_recipe(tmp_path, more=text)


@pytest.mark.parametrize("within", ["corpus", "group"])
def test_rows_that_mean_the_same_are_those_that_the_filter_finds_over_all_rows_at_once(tmp_path, within) -> None:
    rows = [{**row, "group": f"video {number % 4}"} for number, row in enumerate(sentences(40))]
    write_rows(tmp_path / "rows.jsonl", rows)
    folder = write_tiny_encoder(tmp_path / "encoder")
    steps = (
        f'[[step]]\nuse = "semantic_duplicates"\nthreshold = 0.9\nwithin = "{within}"\ncolumns = ["answer"]\n'
        f'encoder = "{folder}"\n'
    )
    out, card = build(toy_recipe(tmp_path, steps, shard_rows=15), workers=1)
    step = SemanticDuplicates(threshold=0.9, within=within, columns=("answer",), encoder=str(folder))
    whole = step.apply(pa.Table.from_pylist(rows))
    assert [row["id"] for row in rows_of(out)] == [
        row["id"] for row, keep in zip(rows, whole.keep, strict=True) if keep
    ]
    assert 0 < card["dropped"] == whole.num_dropped < 40


def test_texts_of_low_quality_are_those_that_the_filter_drops(tmp_path: Path) -> None:
    rows = [{**row, "answer": row["answer"] + "#" * number} for number, row in enumerate(sentences(12))]
    write_rows(tmp_path / "rows.jsonl", rows)
    steps = '[[step]]\nuse = "quality"\nrules = ["symbols_per_word", "mean_word_length"]\n'
    out, card = build(toy_recipe(tmp_path, steps, shard_rows=5), workers=1)
    whole = Quality(rules=("symbols_per_word", "mean_word_length")).apply(pa.Table.from_pylist(rows))
    assert 0 < whole.num_kept < 12
    assert len(rows_of(out)) == whole.num_kept
    assert card["dropped"] == whole.num_dropped


def test_a_recipe_gives_a_rule_limits_of_its_own_and_the_card_has_them(tmp_path: Path) -> None:
    write_rows(
        tmp_path / "rows.jsonl",
        [{"id": text, "prompt": "", "answer": text} for text in ("a", "a b", "a b c", "a b c d")],
    )
    steps = '[[step]]\nuse = "quality"\nrules = ["num_words"]\nlimits = {num_words = [2, 3]}\n'
    out, card = build(toy_recipe(tmp_path, steps), workers=1)
    assert [row["id"] for row in rows_of(out)] == ["a b", "a b c"]
    assert card["steps"][0]["parameters"]["limits"] == {"num_words": [2, 3]}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ('use = "semantic_duplicates"\nthreshold = 1.5', "is 1.5: input should be less than 1"),
        ('use = "semantic_duplicates"\nwithin = "video"', "is 'video': input should be 'corpus' or 'group'"),
        ('use = "quality"\nrules = ["num_word"]', r"unknown quality rule 'num_word' \(did you mean 'num_words'\?\)"),
    ],
)
def test_a_filter_that_cannot_be_is_refused_with_its_step(tmp_path: Path, step: str, message: str) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"id": "a", "prompt": "", "answer": "b"}])
    with pytest.raises(LabError, match=rf"step 1 .*{message}"):
        build(toy_recipe(tmp_path, f"[[step]]\n{step}\n"), workers=1)
