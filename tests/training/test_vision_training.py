from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors import safe_open

from lab.parts.omni_model import OmniModel
from lab.training import vision_training
from lab.training.curricula import CURRICULA, IMAGE, VIDEO
from lab.training.language_models import open_language_model
from lab.training.loop import TrainingRecord
from lab.training.vision import open_vision_encoder
from lab.training.vision_cell import build_vision_model, cell_stages, vision_cell_data
from lab.training.vision_training import CellTraining, train_vision_cell
from tests.training.staged import equal, state
from tests.vision import draw_stand_ins, tiny_cell

BRANCH = {"video_projector_start": "image_projector", "image_branch_steps": 3}


@pytest.fixture
def cell(tmp_path, monkeypatch):
    draw_stand_ins(tmp_path / "things", monkeypatch)
    return tiny_cell(tmp_path)


@pytest.fixture
def checkpoint(tmp_path):
    return tmp_path / "checkpoints" / "cell.safetensors"


def trained(cell, checkpoint, **options) -> tuple[OmniModel, CellTraining]:
    """A cell from its start, as the notebook does it."""
    encoder = open_vision_encoder(cell.vision_encoder)
    data = vision_cell_data(cell, encoder)
    torch.manual_seed(cell.seed)
    model = build_vision_model(cell, encoder, open_language_model(cell.language_model), data)
    return model, train_vision_cell(model, data, cell, checkpoint=checkpoint, **options)


class Killed(BaseException):
    """What a test kills a cell with."""


def kill(monkeypatch, stage: str, step: int) -> None:
    real = vision_training.train_stage

    def train_until(model, parts, chosen, *arguments, **options):
        def on_step(done, loss):
            if (chosen.name, done) == (stage, step):
                raise Killed

        return real(model, parts, chosen, *arguments, **{**options, "on_step": on_step})

    monkeypatch.setattr(vision_training, "train_stage", train_until)


def files_of(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize(
    ("changes", "stage", "step"),
    [
        ({}, "staged_1", 1),
        ({}, "staged_2", 0),
        ({}, "staged_2", 2),
        ({"train_encoder": True}, "staged_2", 1),
        (BRANCH, "staged_1", 0),
        (BRANCH, "staged_1", 1),
        (BRANCH, "staged_2", 1),
    ],
)
def test_a_cell_that_was_killed_goes_on_in_its_stage_and_ends_as_one_that_was_not(
    cell, checkpoint, monkeypatch, changes, stage, step
):
    cell = replace(cell, **changes)
    whole, record = trained(cell, checkpoint)
    with monkeypatch.context() as patch:
        kill(patch, stage, step)
        with pytest.raises(Killed):
            trained(cell, checkpoint)
    before = [s.name for s in cell_stages(cell)]
    before = before[: before.index(stage)]
    assert [name for name in files_of(checkpoint.parent) if name.endswith(".json")] == [
        f"cell-{n}.json" for n in before
    ]
    asked: list[str] = []
    real = vision_training.train_stage
    monkeypatch.setattr(vision_training, "train_stage", lambda *a, **o: asked.append(a[2].name) or real(*a, **o))
    resumed, again = trained(cell, checkpoint)
    assert asked == [s.name for s in cell_stages(cell)][len(before) :]
    assert equal(state(whole), state(resumed))
    assert again.losses == record.losses
    assert again.learning_rates == record.learning_rates
    assert again.ancestry == record.ancestry
    assert (again.lm_tokens, again.decoded_frames) == (record.lm_tokens, record.decoded_frames)


def test_a_cell_killed_between_two_stages_does_not_train_the_first_again(cell, checkpoint, monkeypatch):
    whole, _ = trained(cell, checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(vision_training, "load_stage", lambda *arguments: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            trained(cell, checkpoint)
    assert files_of(checkpoint.parent) == ["cell-staged_1.json", "cell-staged_1.safetensors"]
    resumed, _ = trained(cell, checkpoint)
    assert equal(state(whole), state(resumed))


def test_what_a_stage_left_without_its_record_is_made_again(cell, checkpoint, monkeypatch):
    whole, _ = trained(cell, checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(vision_training, "write_whole", lambda *arguments: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            trained(cell, checkpoint)
    assert files_of(checkpoint.parent) == ["cell-staged_1.safetensors"]
    assert equal(state(whole), state(trained(cell, checkpoint)[0]))


@pytest.mark.parametrize("changes", [{}, BRANCH, {"curriculum": "direct", "max_frames": 1}])
def test_nothing_is_left_beside_a_cell_that_is_done(cell, checkpoint, changes):
    trained(replace(cell, **changes), checkpoint)
    assert files_of(checkpoint.parent) == []


def test_the_ancestry_is_a_chain_of_the_cells_stages(cell, checkpoint):
    _, record = trained(replace(cell, **BRANCH), checkpoint)
    stages = cell_stages(replace(cell, **BRANCH))
    assert [link["stage"] for link in record.ancestry] == [stage.name for stage in stages]
    assert record.ancestry[0]["parents"] == ()
    for parent, link in pairwise(record.ancestry):
        assert link["parents"] == (parent["sha256"],)
    assert len({link["sha256"] for link in record.ancestry}) == 3
    before, first, last = record.ancestry
    assert set(before["trained"]) == {"visual_projector", "language_model"}
    assert set(last["trained"]) == {"visual_projector", "video_projector", "language_model"}
    # Frozen in the curriculum's stages, trained before them.
    assert before["weights"]["visual_projector"] == last["weights"]["visual_projector"]
    assert (
        before["weights"]["video_projector"]
        != first["weights"]["video_projector"]
        != last["weights"]["video_projector"]
    )
    assert last["declaration"]["steps"] == stages[-1].steps


def test_the_video_projector_starts_from_the_weights_of_the_image_projector(cell, checkpoint, monkeypatch):
    starts = {}
    real = vision_training.train_stage

    def noted(model, parts, stage, *arguments, **options):
        starts[stage.name] = {name: state(part) for name, part in parts.items()}
        return real(model, parts, stage, *arguments, **options)

    monkeypatch.setattr(vision_training, "train_stage", noted)
    trained(replace(cell, **BRANCH, projector="c_abstractor"), checkpoint)
    afresh, first = starts["image_branch"], starts["staged_1"]
    assert not equal(afresh["visual_projector"], afresh["video_projector"])
    assert not equal(afresh["visual_projector"], first["visual_projector"])
    assert equal(first["visual_projector"], first["video_projector"])
    # Later the image projector stays as it was, and the video projector has gone on from there.
    assert equal(first["visual_projector"], starts["staged_2"]["visual_projector"])
    assert not equal(first["video_projector"], starts["staged_2"]["video_projector"])


def test_pictures_pass_through_the_visual_projector_in_the_image_branch_alone(cell, checkpoint, monkeypatch):
    seen: dict[str, set[str]] = {}
    real = vision_training.StageBatches.loss

    def noted(batches, step):
        kind, _ = batches.indices(step)
        seen.setdefault(batches.stage.name, set()).add(f"{kind} {batches.sources[kind].branch}")
        return real(batches, step)

    monkeypatch.setattr(vision_training.StageBatches, "loss", noted)
    trained(replace(cell, **BRANCH), checkpoint)
    assert seen == {
        "image_branch": {f"{IMAGE} visual_projector"},
        "staged_1": {f"{IMAGE} video_projector"},
        "staged_2": {f"{IMAGE} video_projector", f"{VIDEO} video_projector"},
    }


@pytest.mark.slow
def test_all_curricula_cost_the_same_and_the_frames_say_what_they_saw(cell, checkpoint, monkeypatch):
    # The batches decide the costs, whatever is trained on them.
    monkeypatch.setattr(
        vision_training,
        "train_stage",
        lambda model, parts, stage, *_, **__: TrainingRecord([1.0] * stage.steps, [1e-3] * stage.steps, 1.0, 1, 0),
    )
    tokens, frames = {}, {}
    for curriculum in CURRICULA:
        # A step is of whole samples: with 1580 tokens it is 41 images or 30 videos, either to 0.2%.
        asked = {"curriculum": curriculum, "num_images": 120, "num_videos": 120, "batch_tokens": 1580, "steps": 60}
        _, record = trained(replace(cell, **asked), checkpoint)
        assert len(record.losses) == len(record.learning_rates) == 60
        tokens[curriculum], frames[curriculum] = record.lm_tokens, record.decoded_frames
    assert tokens == pytest.approx(dict.fromkeys(tokens, 60 * 1580), rel=0.01)
    # 41 frames a step of images, 30 times 3 of video; 24 steps of images first, and 0.4 of the others.
    images = {"image": 60, "staged": 24 + 14, "mixed": 24, "image_then_video": 24, "direct": 0}
    assert frames == {name: 41 * steps + 90 * (60 - steps) for name, steps in images.items()}


def test_a_cell_counts_the_tokens_and_frames_that_it_was_trained_on(cell, checkpoint, monkeypatch):
    frames, positions = [], []
    real = OmniModel.forward

    def noted(model, examples):
        frames.extend(len(example.content[0].seconds) for example in examples)
        for example in model.read(examples):
            tokens, question = example.content
            text = len(question) + len(model.codec.start_ids) + len(example.answer) + 1
            positions.append(len(tokens.values) + text)
        return real(model, examples)

    monkeypatch.setattr(OmniModel, "forward", noted)
    _, record = trained(cell, checkpoint)
    assert record.lm_tokens == sum(positions)
    assert record.decoded_frames == sum(frames)
    assert 0 <= record.padding_share < 0.5


def test_steps_are_told_as_they_are_counted_over_all_stages(cell, checkpoint):
    told = []
    _, record = trained(replace(cell, **BRANCH), checkpoint, on_step=lambda step, loss: told.append((step, loss)))
    assert len({link["stage"] for link in record.ancestry}) == 3
    assert told == list(enumerate(record.losses))


def test_a_stage_of_one_step_has_no_warmup_left(cell, checkpoint):
    _, record = trained(replace(cell, steps=2, warmup_steps=30), checkpoint)
    assert record.learning_rates == pytest.approx([cell.learning_rate] * 2)


def test_the_weights_of_a_stage_lie_beside_the_cells_checkpoint_while_it_is_trained(cell, checkpoint, monkeypatch):
    kill(monkeypatch, "staged_2", 1)
    with pytest.raises(Killed):
        trained(cell, checkpoint)
    assert files_of(checkpoint.parent) == ["cell-staged_1.json", "cell-staged_1.safetensors", "cell.safetensors"]
    with safe_open(checkpoint.parent / "cell-staged_1.safetensors", framework="pt") as file:
        assert {name.partition(".")[0] for name in file.keys()} == {"video_projector", "language_model"}  # noqa: SIM118


def test_a_stage_goes_on_in_the_epoch_of_those_before_it(cell, checkpoint, monkeypatch):
    chosen: list[int] = []
    loss = vision_training.StageBatches.loss

    def kept(batches, step):
        kind, indices = batches.indices(step)
        if kind == IMAGE:
            chosen.extend(indices)
        return loss(batches, step)

    monkeypatch.setattr(vision_training.StageBatches, "loss", kept)
    # 24 images of about 35 tokens: two batches of 8 in the first stage, the third beside the videos.
    trained(replace(cell, batch_tokens=280, steps=5, image_share=0.34), checkpoint)
    assert sorted(chosen) == list(range(24))


@pytest.mark.parametrize(("frames", "expected"), [(0, 0), (1, 1)])
def test_a_baseline_that_sees_nothing_or_one_frame_is_trained_too(cell, checkpoint, frames, expected):
    cell = replace(cell, curriculum="direct", max_frames=frames)
    model, record = trained(cell, checkpoint)
    data = vision_cell_data(cell, open_vision_encoder(cell.vision_encoder))
    assert {len(data[VIDEO].store[sample.id].seconds) for sample in data[VIDEO].samples} == {expected}
    read = model.read([data["test"].example(i, model) for i in range(2)])
    # 4 x 4 patches a frame, pooled to 2 x 2.
    assert [len(example.content[0].values) for example in read] == [4 * expected] * 2
    assert len(record.losses) == cell.steps
    assert (record.decoded_frames == 0) == (frames == 0)
