"""Packages that hold data or weights, fetched by their ordinary client, pinned and checked, unpacked into the cache.

`sources.toml` beside this file is the list. Nothing needs root; nothing half-written stays: a package is downloaded and
unpacked in a temporary folder beside its place and renamed when it is whole.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from lab.errors import LabError, choose
from lab.paths import cache_dir, make_folder

CLIENT_TIMEOUT_SECONDS = 1800


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


@dataclass(frozen=True)
class Availability:
    """Whether a package can be had; false in a condition when it cannot, and then `reason` says why."""

    reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is None


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


def available(name: str) -> Availability:
    """Tell whether `fetch` succeeds, by fetching: an index that knows a package may still be out of reach."""
    try:
        fetch(name)
    except LabError as error:
        return Availability(str(error))
    return Availability()


def sha256_of(path: Path) -> str:
    """Hash a file without reading it whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        timeout=CLIENT_TIMEOUT_SECONDS,
        check=False,
        # `_run` reads the messages, so they have to be the untranslated ones.
        env={**os.environ, "LC_ALL": "C"},
    )


class _Gone(LabError):
    """The index was reached and does not have the version."""


_NO_NETWORK = (
    "Temporary failure in name resolution",
    "Temporary failure resolving",
    "Could not resolve",
    "Failed to establish a new connection",
    "ConnectionError",
    "NewConnectionError",
    "NameResolutionError",
    "Connection refused",
    "Connection failed",
    "Could not connect",
    "Network is unreachable",
    "ENOTFOUND",
    "ECONNREFUSED",
    "EAI_AGAIN",
    "ETIMEDOUT",
    "Read timed out",
)
_GONE = ("No matching distribution", "Unable to locate package", "was not found", "E404", "ETARGET", "404  Not Found")


def _run(package: Package, command: Sequence[str], cwd: Path | None = None) -> str:
    """Return what the client printed.

    Raises:
        LabError: the client is missing or fails; its output is read for the cause.
    """
    try:
        done = run_client(command, cwd)
    except FileNotFoundError as error:
        raise package.failed(f"the program {command[0]!r} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise package.failed(f"{command[0]} took longer than {CLIENT_TIMEOUT_SECONDS} seconds") from error
    output = f"{done.stdout}\n{done.stderr}"
    if done.returncode == 0:
        return output
    if "No space left on device" in output or "ENOSPC" in output:
        raise package.failed("no space is left on the disk")
    if "No module named pip" in output:
        raise package.failed(f"{sys.executable} has no pip")
    if any(sign in output for sign in _NO_NETWORK):
        raise package.failed("the package index cannot be reached (no network?)")
    if any(sign in output for sign in _GONE):
        raise _Gone(str(package.failed("the index does not have this version, or no longer")))
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    raise package.failed(f"{Path(command[0]).name} says: {lines[-1] if lines else 'nothing'}")


def _pip(package: Package, folder: Path) -> None:
    # Wheels only: building a source archive would run its code.
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--retries", "2"]
    _run(package, [*command, "--only-binary", ":all:", "--dest", str(folder), f"{package.package}=={package.version}"])


def _pip_source(package: Package, folder: Path) -> None:
    """Download a source archive; pip asks it for its metadata, so its hash is checked before any of its code runs."""
    wanted = folder.with_name("requirements.txt")
    wanted.write_text(f"{package.package}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--retries", "2"]
    options = ["--no-binary", package.package, "--require-hashes", "--dest", str(folder), "-r", str(wanted)]
    try:
        _run(package, [*command, *options])
    finally:
        wanted.unlink()


def _npm(package: Package, folder: Path) -> None:
    npm = shutil.which("npm") or "npm"
    _run(package, [npm, "pack", "--pack-destination", str(folder), f"{package.package}@{package.version}"], folder)


def _apt(package: Package, folder: Path) -> None:
    """Download with the system's package lists; where they are missing or old, with lists of our own (no root)."""
    download = ["download", f"{package.package}={package.version}"]
    try:
        _run(package, ["apt-get", *download], folder)
        return
    except _Gone as first:
        lists = _own_lists(first, package)
    try:
        _run(package, ["apt-get", *lists, *download], folder)
    except _Gone as second:
        candidate = _candidate(package, lists)
        if candidate and candidate != package.version:
            raise package.failed(f"this Debian mirror has version {candidate}, expected {package.version}") from second
        raise


def _own_lists(first: LabError, package: Package) -> list[str]:
    """Options that keep apt's lists in our cache, filled by `apt-get update`."""
    state = cache_dir() / "packages" / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    options = ["-o", f"Dir::State::Lists={state / 'lists'}", "-o", f"Dir::Cache={state / 'cache'}"]
    try:
        _run(package, ["apt-get", *options, "update", "-qq"])
    except LabError as error:
        raise LabError(f"{first}; apt's own lists are missing or old, and updating them failed too: {error}") from error
    return options


def _candidate(package: Package, lists: Sequence[str]) -> str | None:
    try:
        printed = _run(package, ["apt-cache", *lists, "policy", package.package])
    except LabError:
        return None
    for line in printed.splitlines():
        key, _, value = line.strip().partition(":")
        if key == "Candidate" and value.strip() != "(none)":
            return value.strip()
    return None


CLIENTS: Mapping[str, Callable[[Package, Path], None]] = {
    "pip": _pip,
    "pip_source": _pip_source,
    "npm": _npm,
    "apt": _apt,
}
