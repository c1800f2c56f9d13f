from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from lab.parts.omni_model import OmniModel
from lab.training import stage_training
from lab.training.cell import (
    CURRICULA,
    IMAGE,
    VIDEO,
    cell_batches,
    cell_stages,
    image_branch_data,
    seeing_model,
    seen_data,
)
from lab.training.checkpoints import TrainingRecord
from lab.training.loop import TrainingOptions
from lab.training.named_parts import open_language_model, open_vision_encoder
from lab.training.stage_training import StagesRecord, train_stages
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


def trained(cell, checkpoint, **options) -> tuple[OmniModel, StagesRecord]:
    """A cell from its start, as the notebook does it."""
    encoder = open_vision_encoder(cell.vision_encoder)
    data = seen_data(cell, encoder)
    torch.manual_seed(cell.seed)
    model = seeing_model(cell, encoder, open_language_model(cell.language_model), data)
    given = {
        "batches": cell_batches(cell),
        "own_data": image_branch_data(data),
        "seed": cell.seed,
    }
    stages = cell_stages(cell)
    record = train_stages(model, stages, data, TrainingOptions.of(cell), checkpoint=checkpoint, **given, **options)
    return model, record


class Killed(BaseException):
    """What a test kills a cell with."""


@pytest.mark.parametrize(
    ("changes", "killed_at"),
    [
        ({}, 1),
        ({}, 4),
        ({"train_encoder": True}, 4),
        ({"packed": True, "batch_tokens": 280}, 4),
        (BRANCH, 3),
        (BRANCH, 7),
    ],
)
def test_a_cell_that_was_killed_ends_as_one_that_was_not(cell, checkpoint, changes, killed_at):
    cell = replace(cell, **changes)

    def kill(step: int, loss: float) -> None:
        if step == killed_at:
            raise Killed

    whole, record = trained(cell, checkpoint)
    with pytest.raises(Killed):
        trained(cell, checkpoint, on_step=kill)
    resumed, again = trained(cell, checkpoint)
    assert equal(state(whole), state(resumed))
    assert again.losses == record.losses
    assert again.learning_rates == record.learning_rates
    assert again.ancestry == record.ancestry
    assert again.costs() == record.costs()
    assert len(again.certificates) == len(record.certificates) == (3 if cell.packed else 0)
    assert list(checkpoint.parent.iterdir()) == []


def test_the_ancestry_is_a_chain_of_the_cells_stages(cell, checkpoint):
    _, record = trained(replace(cell, **BRANCH), checkpoint)
    stages = cell_stages(replace(cell, **BRANCH))
    assert [link.stage for link in record.ancestry] == [stage.name for stage in stages]
    assert record.ancestry[0].parents == ()
    for parent, link in pairwise(record.ancestry):
        assert link.parents == (parent.sha256,)
    before, first, last = record.ancestry
    assert set(before.trained) == {"visual_projector", "language_model"}
    assert set(last.trained) == {"visual_projector", "video_projector", "language_model"}
    # Frozen in the curriculum's stages, trained before them.
    assert before.weights["visual_projector"] == last.weights["visual_projector"]
    assert before.weights["video_projector"] != first.weights["video_projector"] != last.weights["video_projector"]
    assert last.declaration["steps"] == stages[-1].steps


def test_the_video_projector_starts_from_the_image_projector_and_pictures_pass_through_it_in_the_image_branch_alone(
    cell, checkpoint, monkeypatch
):
    cell = replace(cell, **BRANCH, projector="c_abstractor")
    starts, branches = [], []
    real = stage_training.train

    def noted(model, loss_of, *arguments, **options):
        seen: set[str] = set()
        starts.append({name: state(part) for name, part in model.parts().items()})
        branches.append(seen)

        def loss(batch):
            seen.update(f"{batch.kind} {one.content[0].branch}" for one in batch.examples)
            return loss_of(batch)

        return real(model, loss, *arguments, **options)

    monkeypatch.setattr(stage_training, "train", noted)
    trained(cell, checkpoint)
    afresh, first, second = starts
    assert not equal(afresh["visual_projector"], afresh["video_projector"])
    assert not equal(afresh["visual_projector"], first["visual_projector"])
    # Later the image projector stays as it was, and the video projector has gone on from there.
    assert equal(first["visual_projector"], second["visual_projector"])
    assert not equal(first["video_projector"], second["video_projector"])
    assert branches == [
        {f"{IMAGE} visual_projector"},
        {f"{IMAGE} video_projector"},
        {f"{IMAGE} video_projector", f"{VIDEO} video_projector"},
    ]


@pytest.mark.slow
def test_all_curricula_cost_the_same_and_the_frames_say_what_they_saw(cell, checkpoint, monkeypatch):
    # The batches decide the costs, whatever is trained on them.
    monkeypatch.setattr(
        stage_training,
        "train",
        lambda *_, steps, **__: TrainingRecord([1.0] * steps, [1e-3] * steps, 1.0, 1),
    )
    tokens, frames = {}, {}
    for curriculum in CURRICULA:
        # A step is of whole samples: with 1580 tokens it is 41 images or 30 videos, either to 0.2%.
        asked = {"curriculum": curriculum, "num_images": 120, "num_videos": 120, "batch_tokens": 1580, "steps": 60}
        _, record = trained(replace(cell, **asked), None)
        assert len(record.losses) == len(record.learning_rates) == 60
        tokens[curriculum], frames[curriculum] = record.costs()["lm_tokens"], record.costs()["decoded_frames"]
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
    costs = trained(cell, checkpoint)[1].costs()
    assert (costs["lm_tokens"], costs["decoded_frames"]) == (sum(positions), sum(frames))
    assert 0 <= costs["padding_share"] < 0.5


def test_a_stage_of_one_step_has_no_warmup_left(cell, checkpoint):
    _, record = trained(replace(cell, steps=2, warmup_steps=30), checkpoint)
    assert record.learning_rates == pytest.approx([cell.learning_rate] * 2)


def test_a_stage_goes_on_in_the_epoch_of_those_before_it(cell, checkpoint):
    # 24 images of about 35 tokens: two batches of 8 in the first stage, the third beside the videos.
    _, record = trained(replace(cell, batch_tokens=280, steps=5, image_share=0.34), checkpoint)
    seen = [own.indices(number) for own in record.batches for number in range(len(own))]
    assert sorted(i for kind, chosen in seen if kind == IMAGE for i in chosen) == list(range(24))


@pytest.mark.parametrize(("frames", "expected"), [(0, 0), (1, 1)])
def test_a_baseline_that_sees_nothing_or_one_frame_is_trained_too(cell, checkpoint, frames, expected):
    cell = replace(cell, curriculum="direct", max_frames=frames)
    model, record = trained(cell, checkpoint)
    data = seen_data(cell, open_vision_encoder(cell.vision_encoder))
    assert {len(data[VIDEO].store[sample.id].seconds) for sample in data[VIDEO].samples} == {expected}
    read = model.read([data["test"].example(i, model) for i in range(2)])
    # 4 x 4 patches a frame, pooled to 2 x 2.
    assert [len(example.content[0].values) for example in read] == [4 * expected] * 2
    assert len(record.losses) == cell.steps
    assert (record.costs()["decoded_frames"] == 0) == (frames == 0)
