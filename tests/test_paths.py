import os
import pwd
import threading
import time

import pytest

from lab.errors import LabError
from lab.paths import cache_dir, make_folder, read_text, write_whole


def test_a_folder_is_made_once_however_many_ask_at_the_same_moment(tmp_path):
    made, started = [], threading.Barrier(4)

    def make(folder):
        made.append(folder)
        (folder / "one.txt").write_text("1")

    def ask():
        started.wait()
        assert (make_folder(tmp_path / "deep" / "folder", make) / "one.txt").read_text() == "1"

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["folder", "folder.lock"]


def test_what_is_made_halfway_leaves_nothing_and_is_made_anew(tmp_path):
    def fail(folder):
        (folder / "one.txt").write_text("1")
        raise OSError("broken off")

    with pytest.raises(OSError, match="broken off"):
        make_folder(tmp_path / "folder", fail)
    assert not (tmp_path / "folder").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["folder.lock"]
    make_folder(tmp_path / "folder", lambda folder: None)
    assert list((tmp_path / "folder").iterdir()) == []


def test_what_a_killed_process_left_is_removed_when_its_folder_is_made_again_and_no_other(tmp_path):
    def killed(name):
        (tmp_path / name / "unfinished").mkdir(parents=True)
        return tmp_path / name

    left, others = killed(".part-one.abcd_123"), [killed(".part-two.abcd_123"), killed(".part-one.two.abcd_123")]
    make_folder(tmp_path / "one", lambda folder: None)
    assert not left.exists()
    assert all(other.exists() for other in others)
    make_folder(tmp_path / "one", lambda folder: None)


def test_a_file_that_a_killed_process_left_is_removed_a_day_later(tmp_path):
    old, new = tmp_path / ".part-old", tmp_path / ".part-new"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    write_whole(tmp_path / "one.txt", "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".part-new", "one.txt"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_read_with_any_byte_order_mark(tmp_path, encoding):
    (tmp_path / "one.toml").write_text("a = '中'\n", encoding=encoding)
    assert read_text(tmp_path / "one.toml") == "a = '中'\n"


def test_without_a_home_the_variable_that_names_the_cache_is_told(monkeypatch):
    def nobody(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CACHE_HOME", "OMNI_LAB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(LabError, match=r"there is no folder for the cache \(.*HOME.*\); name one with OMNI_LAB_CACHE"):
        cache_dir()
