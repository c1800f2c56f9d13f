import json
from dataclasses import replace

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.data.fetch import packages
from lab.data.instructions.instructions import (
    INSTRUCTION_SOURCES,
    instruction,
    read_instructions,
    split_instructions,
    split_of_group,
    with_choices,
)
from lab.data.sample import Text
from lab.errors import LabError
from standins.instructions.bigbench import FIRST, TASKS
from tests.data.fakes import installed

TALKS = """
categories:
- talk
conversations:
- - Who are you?
  - A program.
- - who are you
  - A PROGRAM!
- - Who are you?
  - Nobody.
- - Hello there
  - Hi.
  - How are you today?
  - Fine.
- - Alone
- - ""
  - An answer to nothing.
- - A question to nobody?
  - ""
"""
TASK = """
dataset_name: astronomy
tag: !function utils.nothing
fewshot_config:
  sampler: first_n
  samples:
  - question: 'Where do comets come
      from? (A) The Sun. (B) The Kuiper belt. (C) Mars. (D) Here.'
    target: Let's think. The answer is (B).
  - question: 'Which? (A) One (B) Two (C) Three (D) Four'
    target: Nobody knows.
"""


CHAT = (("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Why?"), ("assistant", "So."))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


@pytest.fixture
def talks():
    installed("chatterbot-corpus", {"chatterbot_corpus/data/english/talk.yml": TALKS.encode()})
    installed(
        "chatterbot-corpus", {"chatterbot_corpus/data/chinese/ai.yml": "conversations:\n- - 你好吗\n  - 好\n".encode()}
    )


def bigbench(examples, task="plurals"):
    folder, _, package = TASKS[task]
    path = f"bigbench-1.0.0/bigbench/benchmark_tasks/{folder}/task.json"
    installed(package, {path: json.dumps({"examples": examples}).encode()})


def data_set(tmp_path, rows, name="data"):
    (tmp_path / name).mkdir()
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / name / "train.jsonl").write_text(text, encoding="utf-8")
    return f"hub:{tmp_path / name}"


def pairs(reading):
    return [(one.asked, one.answer) for one in reading.samples]


def test_every_turn_of_a_conversation_is_asked_for_and_what_was_said_before_is_counted(talks):
    reading = read_instructions("chatterbot")
    found = list(reading.samples)
    assert [(one.asked, one.answer) for one in found] == [
        ("Who are you?", "A program."),
        ("Who are you?", "Nobody."),
        ("Hello there", "Hi."),
        ("Hi.", "How are you today?"),
        ("How are you today?", "Fine."),
    ]
    assert reading.left_out.counts() == {
        "conversation of one turn": 1,
        "said before": 1,
        "empty prompt": 1,
        "empty answer": 1,
    }
    groups = [one.group for one in found]
    assert groups[0] == groups[1] != groups[2] == groups[3] == groups[4]
    assert len({one.id for one in found}) == 5
    assert reading.licence == "BSD-3-Clause"
    assert reading.sources == {"chatterbot-corpus": packages()["chatterbot-corpus"].sha256}


def test_the_language_can_be_chosen_and_sources_joined(talks):
    assert pairs(read_instructions("chatterbot:chinese")) == [("你好吗", "好")]
    assert len(pairs(read_instructions("chatterbot+chatterbot:chinese"))) == 6
    assert len(pairs(read_instructions("chatterbot+chatterbot:chinese", limit=2))) == 3


def test_questions_with_choices_are_answered_by_the_right_choices_text():
    installed("lm-eval", {"lm_eval/tasks/mmlu/flan_cot_fewshot/mmlu_astronomy.yaml": TASK.encode()})
    reading = read_instructions("mmlu")
    assert pairs(reading) == [
        ("Where do comets come from? (A) The Sun. (B) The Kuiper belt. (C) Mars. (D) Here.", "The Kuiper belt.")
    ]
    assert reading.left_out.counts() == {"question without its right choice": 1}


def test_a_task_of_bigbench_gives_its_first_target_or_its_best_choice():
    bigbench(
        [
            {"input": "cat", "target": ["cats", "moggies"]},
            {"input": "ox", "target_scores": {"oxen": 1, "oxes": 0}},
            {"input": "sheep", "target_scores": {"sheep": 1, "sheeps": 1}},
        ]
    )
    reading = read_instructions("bigbench:plurals")
    assert pairs(reading) == [("Plural of cat", "cats"), ("Plural of ox", "oxen")]
    assert reading.left_out.counts() == {"example without one best answer": 1}


def test_what_was_answered_after_several_turns_is_one_sample_in_turns_of_the_groups_of_its_pairs(talks):
    pairs_groups = {one.id: one.group for one in read_instructions("chatterbot").samples}
    found = list(read_instructions("conversations").samples)
    assert [[(part.role, part.text) for part in one.content] for one in found] == [
        [("user", "Hello there"), ("assistant", "Hi."), ("user", "How are you today?")],
    ]
    assert [one.answer for one in found] == ["Fine."]
    assert all(pairs_groups[one.id.removesuffix("-turns")] == one.group for one in found)


def test_of_a_long_conversation_the_last_turns_are_read_from_one_of_the_users():
    turns = "".join(f"  - turn {number}\n" for number in range(1, 9))
    talk = f"conversations:\n- - turn 0\n{turns}"
    installed("chatterbot-corpus", {"chatterbot_corpus/data/english/talk.yml": talk.encode()})
    told = [
        ([part.text.removeprefix("turn ") for part in one.content], one.answer)
        for one in read_instructions("conversations").samples
    ]
    assert told[:3] == [(["0", "1", "2"], "turn 3"), (["1", "2", "3"], "turn 4"), (["0", "1", "2", "3", "4"], "turn 5")]
    assert told[-1] == (["3", "4", "5", "6", "7"], "turn 8")


def test_a_system_message_says_how_the_answer_is_written_and_the_answer_is_written_so():
    bigbench(
        [{"input": word, "target": f"{word}s"} for word in ("cat", "dog", "cow", "hen", "pig", "ant", "bee", "elk")]
    )
    plain = {one.id: one for one in read_instructions("bigbench:plurals").samples}
    found = list(read_instructions("manners:plurals").samples)
    assert len({one.content[0].text for one in found}) > 2
    for one in found:
        before = plain[one.id.removesuffix("-manner")]
        assert (one.content[0].role, one.content[1:], one.group) == ("system", before.content, before.group)
        word = before.answer
        written = {
            "Spell the answer.": " ".join(word),
            "Say the answer twice.": f"{word} {word}",
            "Write the answer from its end.": word[::-1],
            "Be polite.": f"{word}, thank you",
        }
        assert one.answer == written[one.content[0].text]


def test_of_a_later_task_of_bigbench_few_scored_choices_are_the_samples_and_stay_so_when_it_is_asked():
    examples = [
        {"input": "Jo kicked the ball.", "target_scores": {"plausible": 1, "implausible": 0}},
        {"input": "Jo passed the puck.", "target_scores": dict.fromkeys("bcde", 0) | {"a": 1}},
        {"input": "Jo ran.", "target": "plausible"},
    ]
    bigbench(examples, "sports")
    found = list(read_instructions("bigbench:sports").samples)
    assert [one.choices for one in found] == [("plausible", "implausible"), (), ()]
    asked = with_choices([*found, *(replace(found[2], answer=a) for a in ("so", "no"))], str, num_choices=4)
    assert asked[0].choices == ("plausible", "implausible")
    assert [len(one.choices) for one in asked[1:]] == [4] * 4


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [{"messages": [{"role": role, "content": text} for role, text in CHAT]}],
            [("Be kind.\nHi", "Hello"), ("Be kind.\nHi\nHello\nWhy?", "So.")],
        ),
        ([{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}], [("Hi", "Hello")]),
        ([{"instruction": "Add", "input": "1 1", "output": "2"}], [("Add\n1 1", "2")]),
        ([{"question": "Who?", "answer": "Me"}], [("Who?", "Me")]),
    ],
)
def test_the_form_of_a_hub_data_set_is_told_by_its_columns(tmp_path, rows, expected):
    assert pairs(read_instructions(data_set(tmp_path, rows))) == expected


def test_rows_of_the_hub_that_do_not_fit_are_counted(tmp_path):
    turns = [[{"role": "assistant", "content": "I begin"}, {"role": "user", "content": "No"}], []]
    good = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    silent = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " "}]
    reading = read_instructions(data_set(tmp_path, [{"messages": m} for m in (*turns, good, silent)]))
    assert pairs(reading) == [("Hi", "Hello")]
    assert reading.left_out.counts() == {"turns that are not questions and answers in alternation": 2, "empty turn": 1}


def test_the_system_message_and_all_turns_of_a_conversation_stay_turns(tmp_path):
    rows = [{"messages": [{"role": role, "content": text} for role, text in CHAT]}]
    first, second = read_instructions(data_set(tmp_path, rows)).samples
    turns = [Text(text, role) for role, text in CHAT]
    assert (first.content, first.answer) == (tuple(turns[:2]), "Hello")
    assert (second.content, second.answer) == (tuple(turns[:4]), "So.")
    assert first.group == second.group
    assert first.id != second.id


def test_what_cannot_be_read_is_named(talks, tmp_path):
    with pytest.raises(LabError, match=r"unknown source of instructions 'chaterbot' \(did you mean 'chatterbot'\?\)"):
        read_instructions("chaterbot")
    with pytest.raises(LabError, match="unknown language 'klingon'; choose one of: chinese, english"):
        list(read_instructions("chatterbot:klingon").samples)
    with pytest.raises(LabError, match="source 'mmlu' has no option, so not 'easy'"):
        list(read_instructions("mmlu:easy").samples)
    with pytest.raises(LabError, match=r"unknown task of bigbench 'poems'; choose one of: .*facts"):
        list(read_instructions("bigbench:poems").samples)
    with pytest.raises(LabError, match="limit is 0; expected at least 1"):
        read_instructions("chatterbot", limit=0)
    name = data_set(tmp_path, [{"text": "no pairs here"}])
    with pytest.raises(LabError, match="is of no known form: its columns are text; expected messages or conversations"):
        read_instructions(name)
    with pytest.raises(LabError, match=r"unknown split of data set .*: 'tset'; choose one of: train"):
        read_instructions(f"{name}::tset")


@given(st.lists(st.tuples(st.integers(0, 40), st.text(max_size=3)), max_size=60))
def test_no_group_stands_in_two_splits_and_none_is_lost(rows):
    given_ones = [
        instruction(id=str(i), prompt=f"p{i}", answer=text, source="s", group=f"g{group}")
        for i, (group, text) in enumerate(rows)
    ]
    parts = split_instructions(given_ones)
    assert sorted(one.id for part in parts.values() for one in part) == sorted(one.id for one in given_ones)
    groups = [{one.group for one in part} for part in parts.values()]
    assert sum(map(len, groups)) == len(set().union(*groups))


def test_a_tenth_of_the_groups_is_test():
    counts = dict.fromkeys(("train", "dev", "test"), 0)
    for group in range(4000):
        counts[split_of_group(f"g{group}")] += 1
    assert counts["test"] == pytest.approx(400, abs=60)
    assert counts["dev"] == pytest.approx(200, abs=45)


@pytest.mark.parametrize("name", INSTRUCTION_SOURCES)
def test_every_sources_package_is_pinned_with_a_licence(name):
    package = packages()[INSTRUCTION_SOURCES[name][0]]
    assert package.licence
    assert len(package.sha256) == 64


def test_every_task_of_bigbench_is_among_the_files_that_are_unpacked():
    from fnmatch import fnmatch

    for folder, _, package in TASKS.values():
        path = f"bigbench-1.0.0/bigbench/benchmark_tasks/{folder}/task.json"
        assert any(fnmatch(path, pattern) for pattern in packages()[package].members)


def test_tasks_added_to_bigbench_change_neither_its_archive_nor_what_its_name_alone_means():
    assert packages()["bigbench-more"].sha256 == packages()["bigbench"].sha256
    assert packages()["bigbench-more"].licence == packages()["bigbench"].licence
    assert [name for name, (_, _, package) in TASKS.items() if package == "bigbench"] == list(FIRST)


def test_rows_of_two_configurations_of_one_data_set_have_ids_of_their_own(tmp_path, monkeypatch):
    name = data_set(tmp_path, [{"prompt": "Say hello.", "response": "Hello."}])
    real = datasets.load_dataset_builder
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda folder, config, **options: real(folder, **options))
    ids = [one.id for one in read_instructions(f"{name}:en+{name}:zh").samples]
    assert ids == [f"{tmp_path / 'data'}:train-00000000-0", f"{tmp_path / 'data'}#2:train-00000000-0"]
