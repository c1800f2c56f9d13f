import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tqdm import tqdm

from lab.data.filters.steps import LengthBetween, NotEmpty, Pack
from lab.data.recipes import engines
from lab.data.recipes.card import read_card
from lab.data.recipes.run import build, plan
from lab.errors import LabError
from lab.paths import cache_dir, repository_root
from tests.data.recipe_files import ALL_STEPS, hash_folder, planted_rows, toy_recipe, write_rows


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def expected_rows(rows: list[dict[str, Any]]) -> tuple[list[str], dict[str, int]]:
    """The ids that the first three steps of `ALL_STEPS` leave, and how many each drops: one row after the other."""
    kept, seen, dropped = [], set(), Counter[str]()
    for row in rows:
        if not row["answer"].strip():
            dropped["not_empty"] += 1
        elif (row["prompt"], row["answer"]) in seen:
            dropped["exact_duplicates"] += 1
        elif len(row["answer"].split()) > 6:
            dropped["length_between"] += 1
            seen.add((row["prompt"], row["answer"]))
        else:
            kept.append(row["id"])
            seen.add((row["prompt"], row["answer"]))
    return kept, dropped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = planted_rows(110)
    write_rows(tmp_path / "rows.jsonl", rows[:70])
    write_rows(tmp_path / "more.jsonl", rows[70:])
    return tmp_path


def test_a_recipe_leaves_what_a_plain_loop_leaves_and_counts_the_rest(folder: Path) -> None:
    steps = ALL_STEPS.partition('[[step]]\nuse = "sample"')[0]
    out, card = build(toy_recipe(folder, steps, paths=("rows.jsonl", "more.jsonl")), workers=1)
    kept, dropped = expected_rows(planted_rows(110))
    assert [row["id"] for row in rows_of(out)] == kept
    assert {step["use"]: sum(step["dropped"].values()) for step in card["steps"]} == dropped
    assert card["rows_in"] == 110 == card["rows"] + card["dropped"]
    assert card["rows"] == len(kept)
    assert min(dropped.values()) >= 3


def test_the_card_says_what_went_in_and_why_each_step_dropped_what(folder: Path) -> None:
    out, card = build(toy_recipe(folder, ALL_STEPS, paths=("rows.jsonl", "more.jsonl")), workers=1)
    assert read_card(out) == card
    assert [(s["name"], s["rows"], s["licence"]) for s in card["sources"]] == [("s0", 70, "MIT"), ("s1", 40, "MIT")]
    first = card["steps"][0]
    empty = [row["id"] for row in planted_rows(110) if not row["answer"].strip()]
    assert first["dropped"] == {"empty answer": len(empty)}
    assert [row["id"] for row in first["examples"]["empty answer"]] == empty[:5]
    assert first["examples"]["empty answer"][0]["prompt"] == "how many are 3"
    assert [step["rows_in"] for step in card["steps"][1:]] == [step["rows"] for step in card["steps"][:-1]]
    assert card["packages"]["pyarrow"] == pa.__version__
    page = (out / "README.md").read_text()
    for told in (
        "| not_empty | columns = prompt, answer | 110 | 100 | 10 empty answer |",
        "- `r3`: how many are 3 / (empty)",
        card["rows_hash"],
    ):
        assert told in page


def test_the_card_names_the_rows_that_a_source_left_out(folder: Path) -> None:
    (folder / "odd.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt": ["a"], "answer": "b"}\n{"prompt"')
    out, card = build(toy_recipe(folder, paths=("odd.jsonl",)), workers=1)
    (source,) = card["sources"]
    assert (source["rows"], source["skipped"]) == (1, {"prompt that is no text": 1, "line that is no JSON": 1})
    assert source["left_out"] == {
        "prompt that is no text": [f"{folder}/odd.jsonl, line 2"],
        "line that is no JSON": [f"{folder}/odd.jsonl, line 3"],
    }
    page = (out / "README.md").read_text()
    assert f"Left out by s0, line that is no JSON:\n\n- `{folder}/odd.jsonl, line 3`\n" in page
    (folder / "odd.jsonl").write_text('{"prompt": "a", "answer": "b"}\n' + "7\n" * 30)
    _, card = build(toy_recipe(folder, paths=("odd.jsonl",)), workers=1)
    (source,) = card["sources"]
    assert source["skipped"] == {"line that is no JSON object": 30}
    assert len(source["left_out"]["line that is no JSON object"]) == 5


def test_packs_keep_to_the_budget_and_lie_in_one_piece(folder: Path) -> None:
    out, card = build(toy_recipe(folder, ALL_STEPS, paths=("rows.jsonl", "more.jsonl")), workers=1)
    shards = [pq.read_table(path).to_pylist() for path in sorted(out.glob("*.parquet"))]
    packs = 0
    for rows in shards:
        numbers = [row["pack"] for row in rows]
        assert numbers == sorted(numbers)
        assert set(numbers) == set(range(numbers[-1] + 1))
        tokens = Counter[int]()
        for row in rows:
            tokens[row["pack"]] += len(row["prompt"]) + len(row["answer"])
        assert max(tokens.values()) <= 120
        packs += len(tokens)
    assert card["steps"][-1]["numbers"]["packs"] == packs
    assert sum(map(len, shards)) == 40
    assert max(map(len, shards)) <= 20


def test_the_rows_do_not_depend_on_processes_or_on_where_the_files_lie(folder: Path, tmp_path: Path) -> None:
    _, one = build(toy_recipe(folder, ALL_STEPS, paths=("rows.jsonl", "more.jsonl")), workers=1)
    os.environ["OMNI_LAB_CACHE"] = str(tmp_path / "other-cache")
    (folder / "elsewhere").mkdir()
    for name in ("rows.jsonl", "more.jsonl"):
        (folder / name).rename(folder / "elsewhere" / name)
    paths = ("elsewhere/rows.jsonl", "elsewhere/more.jsonl")
    out, other = build(toy_recipe(folder, ALL_STEPS, paths=paths), workers=2, out=folder / "out")
    assert one["rows_hash"] == other["rows_hash"] == hash_folder(out)


def test_a_second_build_runs_nothing_and_a_changed_step_runs_from_there_on(folder: Path) -> None:
    recipe = toy_recipe(folder, ALL_STEPS)
    _, first = build(recipe, workers=1)
    _, second = build(recipe, workers=1)
    assert all(step["cached"] for step in second["steps"])
    assert second["rows_hash"] == first["rows_hash"]
    changed = toy_recipe(folder, ALL_STEPS.replace("num_samples = 40", "num_samples = 30"))
    assert [state.partition(":")[0] for _, state in plan(changed)] == ["in the cache"] * 4 + [
        "to do",
        "to do, or in the cache",
    ]
    _, third = build(changed, workers=1)
    assert [step["cached"] for step in third["steps"]] == [True, True, True, False, False]
    # A parameter that changes no row is a step done again, and nothing behind it.
    same = toy_recipe(folder, ALL_STEPS.replace("most = 6", "most = 6\nleast = 0"))
    _, fourth = build(same, workers=1)
    assert [step["cached"] for step in fourth["steps"]] == [True, True, False, True, True]
    write_rows(folder / "rows.jsonl", planted_rows(71))
    _, fifth = build(recipe, workers=1)
    assert not any(step["cached"] for step in fifth["steps"])


def test_another_version_of_a_step_is_done_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy_recipe(folder, '[[step]]\nuse = "not_empty"\n')
    build(recipe, workers=1)
    monkeypatch.setattr(NotEmpty, "version", NotEmpty.version + 1)
    _, card = build(recipe, workers=1)
    assert card["read"]["cached"]
    assert not card["steps"][0]["cached"]


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from lab import paths

left = int(sys.argv[2])
@contextmanager
def counted(path, real=paths.whole):
    global left
    left -= 1
    with real(path) as unfinished:
        yield unfinished
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
paths.whole = counted
from lab.data.recipes.run import build
from lab.data.recipes.recipe import read_recipe
build(read_recipe(Path(sys.argv[1])), workers=1)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_build_killed_in_any_write_goes_on_with_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe(folder, ALL_STEPS)
    monkeypatch.setenv("OMNI_LAB_CACHE", str(folder / "whole"))
    _, card = build(recipe, workers=1, out=folder / "out")
    written = len([path for path in (folder / "whole").rglob("*") if path.suffix in (".parquet", ".json")])
    monkeypatch.setenv("OMNI_LAB_CACHE", str(folder / "killed"))
    # Each start gets nine files further, and dies in the tenth.
    command = [sys.executable, "-c", KILLED, str(folder / "toy.toml"), "9"]
    starts = 0
    while starts < written:
        starts += 1
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        for path in (folder / "killed").rglob("*.parquet"):
            if not path.name.startswith("."):
                pq.read_table(path)
    assert starts > 3
    out, again = build(recipe, workers=1, out=folder / "again")
    assert again["rows_hash"] == card["rows_hash"] == hash_folder(out)
    assert all(step["cached"] for step in again["steps"])
    assert not list((folder / "killed").rglob(".part-*"))


def test_shards_that_are_there_are_not_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy_recipe(folder, '[[step]]\nuse = "not_empty"\n')
    judged: list[str] = []
    real = NotEmpty.judge

    def judge(self: NotEmpty, rows: pa.Table) -> Any:
        if len(judged) == 2:
            raise KeyboardInterrupt
        judged.append(rows["id"][0].as_py())
        return real(self, rows)

    monkeypatch.setattr(NotEmpty, "judge", judge)
    with pytest.raises(KeyboardInterrupt):
        build(recipe, workers=1)
    assert judged == ["r0", "r20"]
    judged[:] = [""]
    with pytest.raises(KeyboardInterrupt):
        build(recipe, workers=1)
    assert judged == ["", "r40"]
    judged[:] = [""]
    build(recipe, workers=1)
    assert judged == ["", "r60"]


def test_a_killed_worker_is_told_and_the_next_build_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy_recipe(folder, '[[step]]\nuse = "not_empty"\n', shard_rows=5)

    class Killing(tqdm):
        def update(self, n: float = 1) -> None:
            if self.desc.startswith("step 1"):
                for child in multiprocessing.active_children():
                    child.kill()
                    child.join()

    monkeypatch.setattr(engines, "tqdm", Killing)
    with pytest.raises(LabError, match=r"a worker process was killed, by hand or for want of memory; the same command"):
        build(recipe, workers=2)
    out, card = build(recipe, workers=1)
    assert card["rows"] == sum(bool(row["answer"].strip()) for row in planted_rows(70))
    assert hash_folder(out) == card["rows_hash"]


def test_a_step_that_loses_a_row_or_miscounts_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy_recipe(folder, ALL_STEPS)

    monkeypatch.setattr(NotEmpty, "judge", lambda self, rows: [None] * (rows.num_rows - 1))
    with pytest.raises(LabError, match=r"step 1 \(not_empty\): filter 'not_empty' judged 19 samples of 20; expected"):
        build(recipe, workers=1)
    monkeypatch.undo()
    os.environ["OMNI_LAB_CACHE"] = str(folder / "cache")
    monkeypatch.setattr(Pack, "arrange", lambda self, kept: (kept.slice(1), {}))
    with pytest.raises(
        LabError,
        match=r"step pack does not balance in shard .*: of 20 rows 19 stay and 0 are dropped; every row has to stay",
    ):
        build(toy_recipe(folder, '[[step]]\nuse = "pack"\nbudget = 999\n'), workers=1)


def test_a_step_that_drops_everything_is_told_with_its_reasons(folder: Path) -> None:
    with pytest.raises(LabError, match=r"step 1 \(length_between\) dropped all 70 rows: 70 above 0 words"):
        build(
            toy_recipe(folder, '[[step]]\nuse = "length_between"\nleast = 0\nmost = 0\ncolumns = ["prompt"]\n'),
            workers=1,
        )


def test_a_sample_larger_than_what_is_left_is_told(folder: Path) -> None:
    with pytest.raises(LabError, match=r"step 1 \(sample\): 71 rows are asked for and only 70 are left; ask for fewer"):
        build(toy_recipe(folder, '[[step]]\nuse = "sample"\nnum_samples = 71\n'), workers=1)


def test_an_id_that_comes_twice_is_told(folder: Path) -> None:
    write_rows(folder / "more.jsonl", [{"id": "r7", "prompt": "a", "answer": "b"}])
    with pytest.raises(LabError, match="sample id 'r7' comes twice; every row of a recipe needs an id of its own"):
        build(toy_recipe(folder, paths=("rows.jsonl", "more.jsonl")), workers=1)


def test_damage_in_the_middle_of_a_file_costs_its_rows_and_a_cut_file_its_own(folder: Path) -> None:
    rows = planted_rows(3000)
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=1000, compression="none")
    content = bytearray((folder / "rows.parquet").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    (folder / "rows.parquet").write_bytes(content)
    (folder / "tables").mkdir()
    (folder / "rows.parquet").rename(folder / "tables" / "a.parquet")
    pq.write_table(pa.table({"prompt": ["p"], "answer": ["a"]}), folder / "tables" / "c.parquet")
    (folder / "tables" / "b.parquet").write_bytes((folder / "tables" / "c.parquet").read_bytes()[:-20])
    out, card = build(toy_recipe(folder, paths=("tables",), shard_rows=300), workers=1)
    (source,) = card["sources"]
    assert source["skipped"] == {
        "row in a damaged part of a Parquet file": 1000,
        "file that cannot be read as Parquet": 1,
    }
    lost, cut = source["left_out"].values()
    first = int(lost[0].removeprefix(f"{folder}/tables/a.parquet, row "))
    assert first == 1000
    assert cut == [f"{folder}/tables/b.parquet"]
    assert [row["id"] for row in rows_of(out)][999:1001] == ["r999", "r2000"]
    assert card["rows"] == 2001


def test_a_folder_that_holds_something_else_is_left_alone(folder: Path) -> None:
    recipe = toy_recipe(folder, '[[step]]\nuse = "not_empty"\n')
    (folder / "mine").mkdir()
    (folder / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(LabError, match=r"mine is there and is no folder of a recipe; name another with --out"):
        build(recipe, out=folder / "mine", workers=1)
    assert not cache_dir().exists()
    out, _ = build(recipe, out=folder / "built", workers=1)
    _, card = build(toy_recipe(folder, ALL_STEPS), out=out, workers=1)
    assert read_card(out) == card
    assert {path.suffix for path in out.iterdir()} == {".parquet", ".json", ".md"}


def test_a_folder_whose_rows_are_not_those_of_its_card_is_told(folder: Path) -> None:
    out, card = build(toy_recipe(folder, '[[step]]\nuse = "not_empty"\n'), workers=1)
    with pytest.raises(LabError, match=r"has no card\.json; expected a folder that `lab data build` made"):
        read_card(folder)
    (out / "shard-00001.parquet").unlink()
    with pytest.raises(LabError, match=rf"has 45 rows in 3 shards, its card says {card['rows']}; build it again"):
        read_card(out)


def test_unknown_engines_and_no_workers_are_refused(folder: Path) -> None:
    recipe = toy_recipe(folder, '[[step]]\nuse = "not_empty"\n')
    with pytest.raises(LabError, match="unknown engine 'spark'; choose one of: local, ray"):
        build(recipe, engine="spark")
    with pytest.raises(LabError, match="workers is 0, expected at least 1"):
        build(recipe, workers=0)


def test_a_draw_is_the_same_for_the_same_ids_whatever_else_is_there(folder: Path) -> None:
    def drawn(seed: int, paths: tuple[str, ...]) -> list[str]:
        steps = f'[[step]]\nuse = "sample"\nnum_samples = 30\nseed = {seed}\n'
        out, _ = build(toy_recipe(folder, steps, paths=paths), workers=1)
        return [row["id"] for row in rows_of(out)]

    both = ("rows.jsonl", "more.jsonl")
    one, other = drawn(0, both), drawn(1, both)
    assert len(one) == len(set(one)) == len(other) == 30
    assert set(one) != set(other)
    assert set(drawn(0, both[::-1])) == set(one)
    # About 70 of 110 rows stand in the first file; a fair draw of 30 has 19 of them, give or take 2.
    assert 10 <= sum(int(name[1:]) < 70 for name in one) <= 28


def test_lengths_are_counted_as_they_are_called() -> None:
    shard = pa.table({"id": ["a", "b", "c"], "answer": ["ein Wort mehr", "你好 吗", None]})
    for unit, least, kept in [
        ("words", 3, [0]),
        ("characters", 5, [0]),
        ("characters", 4, [0, 1]),
        ("bytes", 10, [0, 1]),
    ]:
        result = LengthBetween(least=least, most=99, unit=unit).apply(shard)
        assert np.flatnonzero(result.keep).tolist() == kept
    assert result.dropped == {"below 10 bytes": 1}
    assert json.dumps(LengthBetween(most=3).parameters())


def test_importing_the_recipes_imports_nothing_heavy() -> None:
    code = "import sys, lab.data.recipes.run; print(sorted({'torch', 'datasets', 'ray', 'pandas'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository_root()
    )
    assert done.stdout.strip() == "[]"
