from pathlib import Path

import pytest

from lab.errors import LabError
from lab.evaluation.kept_texts import KeptTexts


def test_the_first_text_under_a_key_stays_and_an_empty_one_is_a_text(tmp_path: Path) -> None:
    kept = KeptTexts(tmp_path / "folder" / "texts.sqlite", what="texts")
    assert kept.read([b"a"]) == {}
    assert kept.keep([(b"a", "one"), (b"b", "")]) == {b"a": "one", b"b": ""}
    again = KeptTexts(kept.path, what="texts")
    assert again.keep([(b"a", "two")]) == {b"a": "one"}
    assert again.read([b"b", b"c", b"b"]) == {b"b": ""}


def test_a_file_that_is_none_is_named_with_what_was_to_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "texts.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(LabError, match=r"the replies cannot be kept in .*texts\.sqlite \(file is not a database\)"):
        KeptTexts(path, what="the replies").read([b"a"])
