import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.data.filters.filtering import LeftOut
from lab.data.filters.steps import LengthBetween, NotEmpty
from lab.data.instructions.instructions import COLUMNS
from lab.data.recipes.recipe import Recipe, check_recipe, read_recipe
from lab.data.recipes.sources import json_lines
from lab.errors import LabError
from tests.data.recipe_files import planted_rows, toy_recipe, write_rows

FILES = '[[source]]\nname = "a"\nfrom = "files"\npath = "x"\nlicence = "y"\n'
TWO = FILES + FILES
STEP = '[[step]]\nuse = "length_between"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "rows.jsonl", planted_rows(30))
    return tmp_path


def test_a_recipe_reads_as_it_is_written_and_paths_stand_beside_it(folder: Path) -> None:
    recipe = toy_recipe(folder, '[[step]]\nuse = "not_empty"\ncolumns = ["answer"]\n' + STEP + "most = 9\n")
    assert recipe.steps == (NotEmpty(columns=("answer",)), LengthBetween(most=9))
    assert recipe.sources[0].parts() == [str(folder / "rows.jsonl")]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            '[[step]]\nuse = "length_betwen"\n',
            "unknown 'use' of step 1 of recipe toy.toml: 'length_betwen' (did you mean "
            "'length_between'?); choose one of: exact_duplicates, ",
        ),
        ("[[step]]\nmost = 3\n", "step 1 of recipe toy.toml has no 'use'; choose one of: exact_duplicates, "),
        (STEP + "most = 3\nmax = 4\n", "unknown parameter of step 1 (length_between) of recipe toy.toml: 'max'"),
        (
            STEP,
            "parameter 'most' of step 1 (length_between) of recipe toy.toml is missing; they are: least, most",
        ),
        (
            STEP + 'most = "ten"\n',
            "parameter 'most' of step 1 (length_between) of recipe toy.toml is 'ten': input should be a valid integer",
        ),
        (STEP + "most = true\n", "is True: input should be a valid integer"),
        (STEP + "most = 3\ncolumns = []\n", "is []: tuple should have at least 1 item"),
        (
            STEP + "most = 3\ncolumns = [1]\n",
            "parameter 'columns.0' of step 1 (length_between) of recipe toy.toml is 1: input should",
        ),
        (STEP + "most = 3\nunit = 3\n", "is 3: input should be a valid string"),
        (
            STEP + 'most = 3\nunit = "word"\n',
            "step 1 (length_between) of recipe toy.toml: unknown unit 'word' (did you mean 'words'?)",
        ),
        (
            STEP + "most = 3\nleast = 4\n",
            "step 1 (length_between) of recipe toy.toml: least and most are 4 and 3, expected least <= most",
        ),
        (
            '[[step]]\nuse = "quality"\nrules = ["num_words"]\nlimits = {num_words = [3, "many"]}\n',
            "parameter 'limits.num_words.1' of step 1 (quality) of recipe toy.toml is 'many': input should be a valid",
        ),
        (
            '[[step]]\nuse = "sample"\nnum_samples = 0\n',
            "parameter 'num_samples' of step 1 (sample) of recipe toy.toml is 0: input sh",
        ),
        ('[[step]]\nuse = "pack"\nbudget = 0\n', "is 0: input should be greater than or equal to 1"),
        (
            '[[step]]\nuse = "pack"\nbudget = 9\n[[step]]\nuse = "not_empty"\n',
            "step 1 (pack) of recipe toy.toml has to be the last",
        ),
        ('[steps]\nuse = "not_empty"\n', "unknown entry of toy.toml: 'steps' (did you mean 'step'?)"),
        ('[step]\nuse = "not_empty"\n', "recipe toy.toml: a step is a table that begins with [[step]]"),
        ("[[step\n", "toy.toml is no TOML: "),
    ],
)
def test_a_mistaken_step_is_one_sentence_that_names_it(folder: Path, steps: str, message: str) -> None:
    with pytest.raises(LabError, match=re.escape(message)) as raised:
        toy_recipe(folder, steps)
    assert "\n" not in str(raised.value).strip()


@pytest.mark.parametrize("name", ["../../x", "a/b", r"a\\b", "..", "", ".hidden"])
def test_a_name_that_leads_out_of_its_folder_is_refused(folder: Path, name: str) -> None:
    (folder / "r.toml").write_text(f'name = "{name}"\n{FILES}')
    with pytest.raises(LabError, match=r"recipe r.toml: name .* is no folder's; use letters, digits"):
        read_recipe(folder / "r.toml")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_recipe_may_begin_with_a_byte_order_mark(folder: Path, encoding: str) -> None:
    (folder / "r.toml").write_text(f'name = "中 文-2.1"\n{FILES}', encoding=encoding)
    assert read_recipe(folder / "r.toml").name == "中 文-2.1"


def test_json_lines_of_utf_8_may_begin_with_a_mark_and_those_of_utf_16_are_named(folder: Path) -> None:
    recipe = toy_recipe(folder, "")
    rows = folder / "rows.jsonl"
    text = rows.read_text(encoding="utf-8")
    rows.write_text(text, encoding="utf-8-sig")
    (table,) = recipe.sources[0].tables(str(rows), left_out := LeftOut(), 100)
    assert (table.num_rows, left_out) == (30, {})
    rows.write_text(text, encoding="utf-16")
    with pytest.raises(LabError, match=r"has no rows in .*line of UTF-16 where UTF-8 was expected"):
        check_recipe(recipe)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "has sources [], expected at least one"),
        (
            '[[source]]\nname = "a"\nfrom = "file"\n',
            "unknown 'from' of source 1 of recipe r.toml: 'file' (did you mean 'files'?)",
        ),
        (
            '[[source]]\nname = "a"\nfrom = "files"\npath = "rows.jsonl"\n',
            "parameter 'licence' of source 1 (files) of recipe r.toml is missing",
        ),
        ('[[source]]\nname = "a"\nfrom = "files"\npath = 3\nlicence = "x"\n', "is 3: input should be a valid string"),
        (
            '[[source]]\nname = "a"\nfrom = "files"\npath = "x"\nlicence = "x"\ncolumns = {id = 3}\n',
            "parameter 'columns.id' of source 1 (files) of recipe r.toml is 3: input should be a valid string",
        ),
        (
            '[[source]]\nname = "a"\nfrom = "instructions"\ncorpus = "chatterbot"\nlimit = 0\n',
            "parameter 'limit' of source 1 (instructions) of recipe r.toml is 0: input should be greater",
        ),
        (TWO, "has sources ['a', 'a'], expected"),
        (
            f"shard_rows = 0\n{FILES}",
            "parameter 'shard_rows' of recipe r.toml is 0: input should be greater",
        ),
        (
            TWO + 'columns = {reply = "answer"}\n',
            "source 2 (files) of recipe r.toml: unknown column of a recipe's rows",
        ),
    ],
)
def test_a_mistaken_source_is_one_sentence_that_names_it(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(source)
    with pytest.raises(LabError, match=re.escape(message)):
        read_recipe(tmp_path / "r.toml")


def test_a_recipe_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"there is no recipe file .*gone\.toml"):
        read_recipe(tmp_path / "gone.toml")


def test_a_missing_or_empty_source_is_told_before_anything_starts(folder: Path) -> None:
    with pytest.raises(
        LabError, match=r"source 's0' has no file at .*gone\.jsonl; expected a file, a folder or a pattern"
    ):
        check_recipe(toy_recipe(folder, paths=("gone.jsonl",)))
    (folder / "nothing").mkdir()
    with pytest.raises(LabError, match=r"source 's0' has no file at .*nothing; .*\.parquet, \.jsonl"):
        check_recipe(toy_recipe(folder, paths=("nothing",)))
    (folder / "empty.jsonl").write_text("\n")
    with pytest.raises(LabError, match=r"source 's1' has no rows in .*empty\.jsonl"):
        check_recipe(toy_recipe(folder, paths=("rows.jsonl", "empty.jsonl")))
    (folder / "rows.csv").write_text("a,b\n")
    with pytest.raises(LabError, match=r"unknown kind of file of source 's0': '\.csv'"):
        check_recipe(toy_recipe(folder, paths=("rows.csv",)))


def test_a_source_of_nothing_but_a_truncated_parquet_file_is_told_before_anything_starts(folder: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"] * 500, "answer": ["b"] * 500}), folder / "rows.parquet")
    whole = (folder / "rows.parquet").read_bytes()
    (folder / "rows.parquet").write_bytes(whole[: len(whole) // 2])
    why = r"'s0' has no rows in .*; left out: 1 file that cannot be read as Parquet \(.*rows\.parquet\)"
    with pytest.raises(LabError, match=why):
        check_recipe(toy_recipe(folder, paths=("rows.parquet",)))


BAD_LINES = (
    ('{"prompt": ', "line that is no JSON"),
    ('["prompt"]', "line that is no JSON object"),
    ('{"prompt": ["a list"], "answer": "b"}', "prompt that is no text"),
    ('{"prompt": "a", "answer": "half of \\ud83d"}', "answer with half a character"),
    ('{"prompt": "a", "answer": "b", "messages": "turns"}', "messages that are no turns"),
)


def test_lines_that_are_no_row_are_left_out_and_named_with_their_number(folder: Path) -> None:
    good = '{"prompt": "a", "answer": 3, "more": %s}'
    lines = [good % 1, *(line for line, _ in BAD_LINES), "", good % '"of another type"', good % "[]"]
    (folder / "bad.jsonl").write_text("\n".join(lines), encoding="utf-8")
    recipe = toy_recipe(folder, paths=("bad.jsonl",))
    (source,), left_out = recipe.sources, LeftOut()
    (table,) = source.tables(source.parts()[0], left_out, 1000)
    assert [(row["prompt"], row["answer"]) for row in table.to_pylist()] == [("a", "3")] * 3
    assert left_out == {
        reason: [f"{folder}/bad.jsonl, line {number}"] for number, (_, reason) in enumerate(BAD_LINES, 2)
    }
    (folder / "bad.jsonl").write_text(BAD_LINES[0][0])
    with pytest.raises(
        LabError, match=r"'s0' has no rows in .*; left out: 1 line that is no JSON \(.*bad\.jsonl, line 1\)"
    ):
        check_recipe(toy_recipe(folder, paths=("bad.jsonl",)))


def test_rows_of_a_later_batch_may_all_lack_what_others_have(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "b", "group": "c"}, {"prompt": "d", "answer": "e"}])
    types = dict(zip(COLUMNS.names, COLUMNS.types, strict=True))
    first, second = json_lines(tmp_path / "rows.jsonl", 1, types, LeftOut())
    assert second.to_pylist() == [{"prompt": "d", "answer": "e", "group": None}]
    assert second.schema == first.schema


def test_rows_of_a_table_whose_text_is_none_are_left_out_or_nothing(folder: Path) -> None:
    answers = pa.Array.from_buffers(pa.string(), 3, pa.array([b"b", b"\xff", b"c"]).buffers())
    pq.write_table(pa.table({"prompt": [1.0, 2.0, float("nan")], "answer": answers}), folder / "odd.parquet")
    recipe = toy_recipe(folder, paths=("odd.parquet",))
    (source,), left_out = recipe.sources, LeftOut()
    rows = [row for table in source.tables(source.parts()[0], left_out, 2) for row in table.to_pylist()]
    assert [(row["prompt"], row["answer"]) for row in rows] == [("1", "b"), (None, "c")]
    assert left_out == {"text that is not UTF-8": [f"{folder}/odd.parquet, row 1"]}


def rows_of(recipe: Recipe) -> list[dict[str, Any]]:
    (source,) = recipe.sources
    return [
        row for part in source.parts() for table in source.tables(part, LeftOut(), 1000) for row in table.to_pylist()
    ]


def test_every_row_has_the_columns_of_an_instruction_however_they_are_stored(folder: Path) -> None:
    texts = pa.array(["a", "a"])
    for number, kind in enumerate([pa.string(), pa.large_string(), pa.string_view()]):
        columns = {"prompt": texts.cast(kind), "answer": texts.dictionary_encode() if number else pa.array([1, 2])}
        columns |= {"choices": pa.array([{"text": "a"}] * 2), "split": texts}  # something else: none are named
        pq.write_table(pa.table(columns), folder / f"p{number}.parquet")
    rows = rows_of(toy_recipe(folder, paths=("p*.parquet",)))
    assert rows[0] == {
        "id": "s0-0-000000000",
        "prompt": "a",
        "answer": "1",
        "source": "s0",
        "group": "s0-0-000000000",
        "task": None,
        "messages": None,
        "choices": None,
        "split": None,
    }
    assert [row["answer"] for row in rows] == ["1", "2", "a", "a", "a", "a"]
    assert len({row["id"] for row in rows}) == 6


def test_columns_that_are_missing_or_hold_no_text_are_told(folder: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"], "answer": [["b"]]}), folder / "lists.parquet")
    with pytest.raises(LabError, match=r"source 's0': column 'answer' of .*lists\.parquet is list<.*, expected string"):
        check_recipe(toy_recipe(folder, paths=("lists.parquet",)))
    pq.write_table(pa.table({"prompt": ["a"], "score": [1.0]}), folder / "short.parquet")
    with pytest.raises(
        LabError, match=r"short\.parquet has no column 'answer' for 'answer'; its columns are prompt, score: name it"
    ):
        check_recipe(toy_recipe(folder, paths=("short.parquet",)))


def test_a_step_over_a_column_that_rows_do_not_have_is_told(folder: Path) -> None:
    with pytest.raises(
        LabError,
        match=r"step 1 \(not_empty\) of recipe toy\.toml: unknown column 'reply'; choose one of: answer",
    ):
        toy_recipe(folder, '[[step]]\nuse = "not_empty"\ncolumns = ["reply"]\n')


def test_columns_are_renamed_and_one_that_is_not_there_is_told(folder: Path) -> None:
    write_rows(folder / "other.jsonl", [{"question": "a", "reply": "b", "more": 3}])
    asked = 'columns = {prompt = "question", answer = "reply"}\n'
    recipe = toy_recipe(folder, asked, paths=("other.jsonl",))
    (row,) = rows_of(recipe)
    assert (row["prompt"], row["answer"]) == ("a", "b")
    with pytest.raises(
        LabError,
        match=r"source 's0': .*other\.jsonl has no column 'text' for 'prompt'; its columns are question",
    ):
        check_recipe(toy_recipe(folder, 'columns = {prompt = "text"}\n', paths=("other.jsonl",)))


def test_a_hub_data_set_is_known_by_its_files(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "answer": "b"} for i in range(5)]
    write_rows(tmp_path / "set" / "train.jsonl", rows)
    corpus = json.dumps(f"hub:{tmp_path / 'set'}")
    source = f'[[source]]\nname = "h"\nfrom = "instructions"\ncorpus = {corpus}\nlimit = 3\n'
    (tmp_path / "r.toml").write_text(source)
    recipe = read_recipe(tmp_path / "r.toml")
    assert [row["prompt"] for row in rows_of(recipe)] == ["p0", "p1", "p2"]
    (hub,) = recipe.sources
    before = hub.identity(hub.parts()[0])
    write_rows(tmp_path / "set" / "train.jsonl", [*rows, {"prompt": "other", "answer": "b"}])
    assert hub.identity(hub.parts()[0]) != before
