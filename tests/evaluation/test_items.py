from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lab.evaluation.items import NAMES, read_items, scores
from lab.evaluation.statistics import resampled


def test_transcripts_of_a_former_run_are_read_with_todays_names(tmp_path: Path) -> None:
    former = pd.DataFrame(
        {
            "corpus": "actors",
            "split": "test",
            "speaker": "anna",
            "utterance": ["u1", "u2", "u3"],
            "reference": ["The cat.", "A dog", "the cat"],
            "hypothesis": ["the bat", "a dog", "the cat"],
            "reference_normalized": ["the cat", "a dog", "the cat"],
            "hypothesis_normalized": ["the bat", "a dog", "the cat"],
            "character_errors": [1, 0, 0],
            "num_characters": [7, 5, 7],
        }
    )
    former.to_parquet(tmp_path / "utterances.parquet")
    items = read_items(tmp_path / "utterances.parquet")
    assert items["id"].tolist() == ["u1", "u2", "u3"]
    assert items["group"].tolist() == ["the cat", "a dog", "the cat"]
    assert (items["answer"][0], items["given"][0]) == ("The cat.", "the bat")
    assert set(items["task"]) == {"transcribe"}
    assert set(items["source"]) == {"actors"}
    crossed = resampled(items.assign(row="r", seed=0), "character_error_rate", 10)
    assert (crossed.num_utterances, crossed.num_sentences) == (3, 2)
    assert crossed.rates.item() == pytest.approx(1 / 19)


def test_choices_and_losses_of_a_former_run_are_read_with_todays_names(tmp_path: Path) -> None:
    asked = pd.DataFrame(
        {
            "question": ["q1", "q2"],
            "group": ["g", "g"],
            "kind": ["plurals", "past"],
            "asked": ["of cat", "of go"],
            "answer": ["cats", "went"],
            "chosen": ["cats", "goed"],
            "wrong_answers": [0, 1],
            "num_questions": 1,
            "num_choices": 4,
            "loss": [1.0, 2.0],
            "num_tokens": [5, 5],
            "corpus": "bigbench",
            "split": "test",
        }
    )
    seen = pd.DataFrame(
        {
            "question": ["i1", "i2"],
            "prompt": ["one", "two"],
            "answer": ["a", "b"],
            "kind": ["clean", "swapped"],
            "loss": [0.5, 4.0],
            "loss_without_prompt": np.nan,
            "kept": [True, False],
            "corpus": "bigbench",
            "split": "train",
        }
    )
    pd.concat([asked, seen], ignore_index=True).to_parquet(tmp_path / "utterances.parquet")
    items = read_items(tmp_path / "utterances.parquet")
    assert set(NAMES) <= set(items)
    test, train = (items[items["split"] == split] for split in ("test", "train"))
    assert test["given"].tolist() == ["cats", "goed"]
    assert scores(test, "test")["test_accuracy_past"] == 0.0
    assert train["asked"].tolist() == ["one", "two"]
    assert train["fault"].tolist() == ["clean", "swapped"]
    assert train["id"].tolist() == ["i1", "i2"]


def test_todays_table_is_read_as_it_is(tmp_path: Path) -> None:
    table = pd.DataFrame({name: ["a", "b"] for name in NAMES})
    table.to_parquet(tmp_path / "utterances.parquet")
    pd.testing.assert_frame_equal(read_items(tmp_path / "utterances.parquet"), table)
