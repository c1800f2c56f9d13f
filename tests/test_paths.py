import threading

import pytest

from lab.paths import make_folder


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
