import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lab.errors import LabError
from lab.training.stage_training import Ancestry, declaration, from_json, load_stage, save_stage, with_stage
from lab.training.stages import Stage
from tests.training.staged import Staged, equal, run, stage, state, three_stages


def trained(chosen: Stage, files: dict[str, Path], stages: dict[str, Stage], path: Path, seed: int = 0) -> Staged:
    """The stage from those files, run and saved; everything anew but the files, as in another process."""
    model = Staged(seed)
    ancestry = load_stage(chosen, model.parts(), files, stages)
    save_stage(path, model.parts(), run(model, chosen, ancestry=ancestry).ancestry)
    return model


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Three stages, each from the last."""
    stages, made = three_stages(), {}
    for name, chosen in stages.items():
        path = tmp_path / f"{name}.safetensors"
        trained(chosen, {parent: made[parent] for parent in chosen.starts_from}, stages, path)
        made[name] = path
    return made


def test_each_of_three_stages_knows_all_that_went_before(files):
    chains = [from_json(read_entries(path), str(path)) for path in files.values()]
    assert [[link.stage for link in chain] for chain in chains] == [["one"], ["one", "two"], ["one", "two", "three"]]
    assert chains[2][:2] == chains[1]
    assert [link.parents for link in chains[2]] == [(), (chains[0][0].sha256,), (chains[1][1].sha256,)]
    one, two, three = chains[2]
    # A frozen part is the same in both links, a trained one is not.
    changed = [
        [part for part in one.weights if a.weights[part] != b.weights[part]] for a, b in ((one, two), (two, three))
    ]
    assert changed == [["vision_encoder", "visual_projector"], list(one.weights)]


def test_ancestry_is_in_the_files_own_metadata(files):
    with safe_open(files["two"], framework="pt") as file:
        entries = json.loads(file.metadata()["ancestry"])
    assert [entry["stage"] for entry in entries] == ["one", "two"]
    assert entries[0]["declaration"]["learning_rates"] == {"visual_projector": 0.01}


def test_a_stage_starts_from_the_last_ones_weights_to_the_bit(tmp_path, files):
    stages, model = three_stages(), Staged()
    load_stage(stages["three"], model.parts(), {"two": files["two"]}, stages)
    assert equal(state(model), state(trained(stages["two"], {"one": files["one"]}, stages, tmp_path / "again")))


def test_a_file_holds_what_was_trained_since_pretraining(files):
    held = {name: {key.split(".")[0] for key in load_file(path)} for name, path in files.items()}
    assert held["one"] == {"visual_projector"}
    assert held["two"] == {"visual_projector", "vision_encoder"}
    assert held["three"] == {"visual_projector", "vision_encoder", "language_model"}


def refused(chosen: str | Stage, files: dict[str, Path], message: str, model: Staged | None = None, **stages: Stage):
    model = model or Staged()
    before, known = state(model), {**three_stages(), **stages}
    with pytest.raises(LabError, match=message):
        load_stage(known[chosen] if isinstance(chosen, str) else chosen, model.parts(), files, known)
    assert equal(before, state(model))


def test_weights_of_the_wrong_ancestor_are_refused_by_name(files):
    refused("three", {"two": files["one"]}, r"stage 'three' starts from 'two', but .*one\.safetensors holds .* 'one'")
    refused("three", {"one": files["one"]}, "stage 'three' starts from 'two'; got files of 'one'")
    refused("one", {"one": files["one"]}, "stage 'one' starts from the pretrained parts alone; got files of 'one'")
    refused("two", {}, "stage 'two' starts from 'one'; got files of the pretrained parts alone")


def test_an_ancestor_that_was_declared_otherwise_is_refused_by_name(files):
    other = replace(three_stages()["one"], learning_rates={"visual_projector": 0.5}, steps=7)
    message = r"two\.safetensors comes from a stage 'one' with other learning_rates, steps; train it anew"
    refused("three", {"two": files["two"]}, message, one=other)


def test_a_changed_description_makes_no_other_ancestor(files):
    other = replace(three_stages()["one"], paper="in other words")
    load_stage(three_stages()["two"], Staged().parts(), {"one": files["one"]}, {**three_stages(), "one": other})


def test_a_frozen_part_that_is_another_one_here_is_named(files):
    refused("three", {"two": files["two"]}, "was trained with another 'language_model' than this model's", Staged(7))


def test_weights_that_were_changed_afterwards_are_refused(files):
    tensors = load_file(files["one"])
    tensors["visual_projector.0.weight"] += 1
    rewrite(files["one"], tensors, read_entries(files["one"]))
    refused("two", {"one": files["one"]}, "weights of 'visual_projector' in .* are not those that stage 'one' left")


def read_entries(path: Path) -> list[dict]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["ancestry"])


def rewrite(path: Path, tensors: dict[str, torch.Tensor], entries: list[dict]) -> None:
    save_file(tensors, path, metadata={"ancestry": json.dumps(entries)})


def test_an_ancestry_that_was_changed_afterwards_is_refused(files):
    tensors, entries = load_file(files["two"]), read_entries(files["two"])
    entries[0]["declaration"]["steps"] = 7
    rewrite(files["two"], tensors, entries)
    refused("three", {"two": files["two"]}, "the ancestry in .* does not fit itself at stage 'one'")
    rewrite(files["two"], tensors, read_entries(files["one"])[1:] + read_entries(files["three"])[1:2])
    refused("three", {"two": files["two"]}, "the ancestry in .* does not fit itself at stage 'two'")


def test_weights_of_another_model_are_refused(files):
    model = Staged()
    model.visual_projector[0] = torch.nn.Linear(4, 4, bias=False)
    refused("two", {"one": files["one"]}, "weights of 'visual_projector' in .* do not fit this model's", model)


def test_weights_without_an_ancestry_and_damaged_ones_are_named(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "plain")
    refused("two", {"one": tmp_path / "plain"}, "plain does not say which stage its weights come from")
    (tmp_path / "damaged").write_bytes(b"no")
    for name in ("damaged", "missing"):
        refused("two", {"one": tmp_path / name}, f"{name} cannot be read")


def test_a_start_that_is_not_found_is_refused(files):
    refused(stage(starts_from=None), {}, "the start in stage 'one' is not found in the paper")


def test_a_stage_without_copies_is_declared_as_before_there_were_any():
    assert "starts_as" not in declaration(stage())
    assert declaration(stage(starts_as={"visual_projector": "language_model"}))["starts_as"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="one cannot be written"):
        save_stage(tmp_path / "file" / "one", Staged().parts(), with_stage((), stage(), Staged().parts()))


def branches(tmp_path: Path, right: Stage, left_files: dict[str, Path]) -> tuple[dict[str, Stage], dict[str, Path]]:
    left = stage("left", starts_from=tuple(left_files))
    joined = stage("joined", starts_from=("left", "right"))
    every = [*(three_stages()[name] for name in left_files), left, right, joined]
    given = {one.name: one for one in every}
    trained(left, left_files, given, tmp_path / "left")
    trained(right, {}, given, tmp_path / "right")
    return given, {"left": tmp_path / "left", "right": tmp_path / "right"}


def test_branches_that_trained_different_parts_are_joined(tmp_path):
    right = stage("right", frozen=(), learning_rates={"vision_encoder": 0.01})
    given, made = branches(tmp_path, right, {})
    model = Staged()
    chain: Ancestry = load_stage(given["joined"], model.parts(), made, given)
    assert [link.stage for link in chain] == ["left", "right"]
    for name, part in (("left", "visual_projector"), ("right", "vision_encoder")):
        saved = {key.removeprefix(f"{part}."): value for key, value in load_file(made[name]).items()}
        assert equal(state(model.parts()[part]), saved)
    assert equal(state(model.language_model), state(Staged().language_model))
    end = with_stage(chain, given["joined"], model.parts())[-1]
    assert end.parents == tuple(link.sha256 for link in chain)
    assert set(end.trained) == {"visual_projector", "vision_encoder"}


def test_branches_that_trained_one_part_to_different_weights_are_refused(tmp_path):
    given, made = branches(tmp_path, stage("right", steps=3), {})
    refused("joined", made, "stages 'left' and 'right' trained 'visual_projector' to different weights", **given)
