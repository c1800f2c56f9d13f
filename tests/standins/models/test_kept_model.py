from pathlib import Path

import pytest
from safetensors import SafetensorError

from lab.errors import LabError
from lab.paths import cache_dir
from standins.models.kept_model import kept_folder, made_model, write_description


def test_a_folder_is_known_by_all_that_the_model_was_made_of() -> None:
    folder = kept_folder("models", "toy", 1, {"steps": 2, "seed": 0}, "text")
    assert folder.parent == cache_dir() / "models"
    assert folder == kept_folder("models", "toy", 1, {"seed": 0, "steps": 2}, "text")
    assert folder != kept_folder("models", "toy", 1, {"seed": 1, "steps": 2}, "text")


def test_a_model_is_made_once_with_a_checkpoint_beside_its_folder() -> None:
    kept = kept_folder("models", "toy", 1)
    checkpoints: list[Path] = []

    def make(folder: Path, checkpoint: Path) -> None:
        checkpoints.append(checkpoint)
        write_description(folder / "toy.json", {"steps": 2})

    assert [made_model(kept, "the toy", make) for _ in range(2)] == [kept, kept]
    assert checkpoints == [kept.with_suffix(".checkpoint")]
    assert (kept / "toy.json").read_text() == '{\n  "steps": 2\n}\n'


def test_a_full_disk_is_one_sentence_and_leaves_nothing() -> None:
    def full(folder: Path, checkpoint: Path) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    kept = kept_folder("models", "toy", 1)
    with pytest.raises(LabError, match=r"the toy cannot be written to .*toy-.* \(.*No space left"):
        made_model(kept, "the toy", full)
    assert [path.suffix for path in kept.parent.iterdir()] == [".lock"]
