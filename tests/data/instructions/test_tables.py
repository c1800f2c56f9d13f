import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.data.filters.filtering import LeftOut
from lab.data.instructions.instructions import in_batches, instruction, read_instruction_table, table_of
from lab.data.sample import Sample, Text
from lab.errors import LabError


def some(count):
    return [instruction(id=f"i{n}", prompt=f"p{n}", answer="好", source="s", group=f"g{n}") for n in range(count)]


def test_what_is_written_is_read(tmp_path):
    pq.write_table(table_of(some(5)), tmp_path / "a.parquet")
    assert list(read_instruction_table(tmp_path / "a.parquet", LeftOut())) == some(5)
    assert pq.read_schema(tmp_path / "a.parquet").names == [
        "id",
        "prompt",
        "answer",
        "source",
        "group",
        "task",
        "messages",
        "choices",
        "split",
    ]


def test_a_conversation_and_its_system_message_are_read_as_they_were(tmp_path):
    turns = (Text("Be kind.", "system"), Text("Hi"), Text("Hello", "assistant"), Text("Why?"))
    talk = Sample(id="a", content=turns, answer="So.", source="s", group="g", task="instruct")
    pq.write_table(table_of([talk, *some(1)]), tmp_path / "a.parquet")
    assert list(read_instruction_table(tmp_path / "a.parquet", LeftOut())) == [talk, *some(1)]
    assert pq.read_table(tmp_path / "a.parquet")["prompt"].to_pylist()[0] == "Be kind.\nHi\nHello\nWhy?"


def test_a_table_of_somebody_elses_needs_no_more_than_five_columns(tmp_path):
    row = {"id": ["a"], "prompt": ["p"], "answer": [None], "source": ["s"], "group": [""], "more": [1]}
    answer = {"answer": pa.array([None], pa.string())}
    pq.write_table(pa.table({**row, **answer}), tmp_path / "a.parquet")
    assert list(read_instruction_table(tmp_path / "a.parquet", LeftOut())) == [
        instruction(id="a", prompt="p", answer="", source="s", group="a")
    ]


def test_a_row_whose_text_is_not_utf_8_is_left_out_and_named(tmp_path):
    table = table_of(some(4))
    texts = pa.array([b"a", b"\xff", b"b", b"\xc3"])
    broken = pa.Array.from_buffers(pa.string(), 4, texts.buffers())
    pq.write_table(table.set_column(table.column_names.index("answer"), "answer", broken), tmp_path / "a.parquet")
    left_out = LeftOut()
    read = read_instruction_table(tmp_path / "a.parquet", left_out)
    assert [(one.id, one.answer) for one in read] == [("i0", "a"), ("i2", "b")]
    assert left_out == {"text that is not UTF-8": [f"{tmp_path}/a.parquet, row {n}" for n in (1, 3)]}


def test_choices_and_a_single_turn_of_another_role_are_read_as_they_were(tmp_path):
    rule = Sample(id="a", content=(Text("Be kind.", "system"),), answer="b", choices=("b", "c"), source="s")
    pq.write_table(table_of([rule, *some(1)]), tmp_path / "a.parquet")
    assert list(read_instruction_table(tmp_path / "a.parquet", LeftOut())) == [rule, *some(1)]


def test_a_part_of_a_type_that_there_is_not_is_told(tmp_path):
    row = {**dict.fromkeys(("id", "prompt", "answer", "source", "group"), "a")}
    pq.write_table(
        pa.Table.from_pylist([{**row, "messages": [{"role": "user", "type": "sound", "content": "a.wav"}]}]),
        tmp_path / "a.parquet",
    )
    with pytest.raises(LabError, match="unknown type of a message's part 'sound'; choose one of: audio, image, text"):
        list(read_instruction_table(tmp_path / "a.parquet", LeftOut()))


def test_batches_hold_everything_once():
    assert [len(batch) for batch in in_batches(some(7), 3)] == [3, 3, 1]
    assert [one for batch in in_batches(iter(some(7)), 3) for one in batch] == some(7)


def test_another_schema_and_a_cut_file_are_named_before_anything_is_read(tmp_path):
    good, other, cut = (tmp_path / f"{name}.parquet" for name in ("good", "other", "cut"))
    pq.write_table(table_of(some(3)), good)
    pq.write_table(pa.table({"id": [1], "prompt": ["p"], "answer": ["a"], "source": ["s"], "group": ["g"]}), other)
    cut.write_bytes(good.read_bytes()[:-20])
    with pytest.raises(LabError, match=r"column 'id' of .*other\.parquet is int64, expected string"):
        read_instruction_table(other, LeftOut())
    with pytest.raises(LabError, match=r"cut\.parquet cannot be read as Parquet"):
        read_instruction_table(cut, LeftOut())
