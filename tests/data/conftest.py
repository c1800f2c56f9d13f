from pathlib import Path

import pytest

from lab.data import fetch, hub


@pytest.fixture(autouse=True)
def no_package_clients(monkeypatch):
    """A test that would ask a package index fails at once; those that need a package lay it into their own cache."""

    def refuse(command, cwd=None):
        raise AssertionError(f"a test ran {command}")

    monkeypatch.setattr(fetch, "run_client", refuse)


@pytest.fixture(autouse=True)
def commits(monkeypatch):
    """The hub, of which every data set is at one commit; folders are as they are."""
    real = hub.data_revision
    monkeypatch.setattr(hub, "data_revision", lambda name: real(name) if Path(name).is_dir() else f"commit of {name}")
