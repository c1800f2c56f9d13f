import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.data.filters.steps import LengthBetween, NotEmpty
from lab.data.recipes.recipe import check_recipe, read_recipe
from lab.errors import LabError
from tests.data.recipe_files import planted_rows, toy_recipe, write_rows

STEP = '[[step]]\nuse = "length_between"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "rows.jsonl", planted_rows(30))
    return tmp_path


def test_a_recipe_reads_as_it_is_written_and_paths_stand_beside_it(folder: Path) -> None:
    recipe = toy_recipe(folder, '[[step]]\nuse = "not_empty"\ncolumns = ["answer"]\n' + STEP + "most = 9\n")
    assert recipe.steps == (NotEmpty(columns=("answer",)), LengthBetween(most=9))
    assert recipe.sources[0].parts() == [str(folder / "rows.jsonl")]
    assert check_recipe(recipe).names == ["id", "prompt", "answer", "source"]


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
            "step 1 (length_between) of recipe toy.toml needs the parameter 'most'; its parameters are: least, most",
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
            "source 1 (files) of recipe r.toml needs the parameter 'licence'",
        ),
        ('[[source]]\nname = "a"\nfrom = "files"\npath = 3\nlicence = "x"\n', "is 3: input should be a valid string"),
        (
            '[[source]]\nname = "a"\nfrom = "files"\npath = "x"\nlicence = "x"\ncolumns = {id = 3}\n',
            "parameter 'columns.id' of source 1 (files) of recipe r.toml is 3: input should be a valid string",
        ),
        (
            '[[source]]\nname = "a"\nfrom = "hub"\ndataset = "x"\nlimit = 0\n',
            "parameter 'limit' of source 1 (hub) of recipe r.toml is 0: input should be greater than or equal to 1",
        ),
        (
            '[[source]]\nname = "a"\nfrom = "hub"\ndataset = "x"\n[[source]]\nname = "a"\nfrom = '
            '"hub"\ndataset = "y"\n',
            "has sources ['a', 'a'], expected",
        ),
        (
            'shard_rows = 0\n[[source]]\nname = "a"\nfrom = "hub"\ndataset = "x"\n',
            "parameter 'shard_rows' of recipe r.toml is 0: input should be greater than or equal to 1",
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


def test_a_truncated_parquet_file_is_told_before_anything_starts(folder: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"] * 500, "answer": ["b"] * 500}), folder / "rows.parquet")
    whole = (folder / "rows.parquet").read_bytes()
    (folder / "rows.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        LabError,
        match=r"rows\.parquet cannot be read as Parquet, it is damaged or cut short \(.*\); expected a whole file",
    ):
        check_recipe(toy_recipe(folder, paths=("rows.parquet",)))


def test_lines_that_are_no_json_are_told_with_their_number(folder: Path) -> None:
    for text, message in [
        ('{"prompt": "a"}\n\n{"prompt": \n', r"line 3 of .*bad\.jsonl is no JSON"),
        ('{"prompt": "a"}\n["prompt"]\n', r"line 2 of .*bad\.jsonl is no JSON object"),
        ('{"prompt": "a"}\n{"prompt": 3}\n', r"bad\.jsonl: a column is of more than one type"),
        (
            '{"id": "a", "prompt": "a"}\n{"prompt": "b"}\n',
            r"source 's0': row 1 of .*bad\.jsonl has no id; expected one in every row",
        ),
    ]:
        (folder / "bad.jsonl").write_text(text)
        with pytest.raises(LabError, match=message):
            check_recipe(toy_recipe(folder, paths=("bad.jsonl",)))


def test_files_and_sources_with_other_columns_are_told(folder: Path) -> None:
    (folder / "mixed").mkdir()
    pq.write_table(pa.table({"prompt": ["a"], "answer": ["b"]}), folder / "mixed" / "1.parquet")
    pq.write_table(pa.table({"prompt": ["a"], "answer": [3]}), folder / "mixed" / "2.parquet")
    with pytest.raises(
        LabError,
        match=r"source 's0': .*2\.parquet: column 'answer' is int64, expected string as in "
        r"those before it; all rows of a recipe have the columns id \(string\), prompt",
    ):
        check_recipe(toy_recipe(folder, paths=("mixed",)))
    pq.write_table(pa.table({"prompt": ["a"]}), folder / "mixed" / "2.parquet")
    with pytest.raises(LabError, match=r"2\.parquet: column 'answer' is none, expected string"):
        check_recipe(toy_recipe(folder, paths=("mixed",)))
    pq.write_table(pa.table({"prompt": ["a"], "answer": ["b"], "score": [1.0]}), folder / "mixed" / "2.parquet")
    with pytest.raises(LabError, match=r"source 's1': .*2\.parquet: column 'score' is double, expected none"):
        check_recipe(toy_recipe(folder, paths=("mixed/1.parquet", "mixed/2.parquet")))


def test_the_ways_to_store_a_text_and_the_order_of_columns_are_no_difference(folder: Path) -> None:
    texts = pa.array(["a", "a"])
    for number, kind in enumerate([pa.string(), pa.large_string(), pa.string_view()]):
        columns = {"prompt": texts.cast(kind), "answer": texts.dictionary_encode() if number else texts}
        table = pa.table(dict(reversed(columns.items())) if number else columns)
        pq.write_table(table, folder / f"p{number}.parquet")
    schema = check_recipe(toy_recipe(folder, paths=("p*.parquet",)))
    assert schema == pa.schema([(name, pa.string()) for name in ("id", "prompt", "answer", "source")])


def test_a_step_whose_column_is_missing_or_of_another_type_is_told(folder: Path) -> None:
    with pytest.raises(
        LabError, match=r"step 1 \(not_empty\) of recipe 'toy' needs the column 'reply'; the rows have: id, prompt"
    ):
        check_recipe(toy_recipe(folder, '[[step]]\nuse = "not_empty"\ncolumns = ["reply"]\n'))
    with pytest.raises(
        LabError, match=r"step 1 \(pack\) of recipe 'toy' needs whole numbers in column 'prompt', which has string"
    ):
        check_recipe(toy_recipe(folder, '[[step]]\nuse = "pack"\nbudget = 9\nunit = "prompt"\n'))


def test_columns_are_renamed_and_one_that_is_not_there_is_told(folder: Path) -> None:
    write_rows(folder / "other.jsonl", [{"question": "a", "reply": "b", "more": 3}])
    asked = 'columns = {prompt = "question", answer = "reply"}\n'
    recipe = toy_recipe(folder, asked, paths=("other.jsonl",))
    (table,) = recipe.sources[0].rows(0)
    assert table.to_pylist() == [{"id": "s0-0-000000000", "prompt": "a", "answer": "b", "source": "s0"}]
    with pytest.raises(
        LabError, match=r"source 's0': .*other\.jsonl has no column 'text'; its columns are question, reply, more"
    ):
        check_recipe(toy_recipe(folder, 'columns = {prompt = "text"}\n', paths=("other.jsonl",)))


def test_a_hub_data_set_is_streamed_by_split_and_known_by_its_files(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("test", 2)):
        write_rows(
            tmp_path / "set" / f"{split}.jsonl", [{"prompt": f"{split} {i}", "answer": "b"} for i in range(count)]
        )
    source = f'[[source]]\nname = "h"\nfrom = "hub"\ndataset = {json.dumps(str(tmp_path / "set"))}\nlimit = 3\n'
    (tmp_path / "r.toml").write_text(source)
    hub = read_recipe(tmp_path / "r.toml").sources[0]
    assert sorted(hub.parts()) == ["test", "train"]
    tables = {part: pa.concat_tables(hub.rows(number)) for number, part in enumerate(hub.parts())}
    assert tables["train"]["prompt"].to_pylist() == ["train 0", "train 1", "train 2"]
    assert tables["test"]["prompt"].to_pylist() == ["test 0", "test 1"]
    before = hub.identity("train")
    write_rows(tmp_path / "set" / "train.jsonl", [{"prompt": "other", "answer": "b"}])
    assert hub.identity("train") != before
    (tmp_path / "r.toml").write_text(source.replace('/set"', '/set::trian"'))
    with pytest.raises(LabError, match=r"unknown split of data set '.*set': 'trian' \(did you mean 'train'\?\)"):
        read_recipe(tmp_path / "r.toml").sources[0].parts()
