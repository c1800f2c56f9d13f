import pytest

from lab.data import fetch


@pytest.fixture(autouse=True)
def no_package_clients(monkeypatch):
    """A test that would ask a package index fails at once; those that need a package lay it into their own cache."""

    def refuse(command, cwd=None):
        raise AssertionError(f"a test ran {command}")

    monkeypatch.setattr(fetch, "run_client", refuse)
