"""A cell of the whole model: its stages, what each of them sees and trains, kept first stages, and its saved model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.data.filters.filtering import Filtered
from lab.data.normalizers import NORMALIZERS
from lab.data.sample import Audio, Image, Sample, Text
from lab.errors import LabError
from lab.evaluation.answering import Choose, Transcribe, Write, answer_tests, ask, how_asked
from lab.evaluation.benchmarks.samples import open_saved
from lab.evaluation.items import scores_of_tests
from lab.parts.saved_model import save_model
from lab.study.preparation import check_cell
from lab.training import sample_filters
from lab.training.cell import cell_batches, cell_stages, omni_data, omni_model
from lab.training.loop import TrainingOptions
from lab.training.named_parts import open_encoders, open_language_model
from lab.training.parameters import OmniParameters
from lab.training.sample_filters import SampleFilter
from lab.training.stage_training import train_stages
from tests import speech, vision

NORMALIZER = NORMALIZERS["whisper_english"]
PROJECTORS = ("visual_projector", "video_projector", "audio_projector")
ALL = (*PROJECTORS, "vision_encoder", "audio_encoder", "language_model")
STAGES = {
    "image_1": {"share": 0.2, "data": {"captions": 1.0}},
    "image_2": {"share": 0.2, "data": {"vqa": 1.0, "captions": 1.0}},
    "video": {"share": 0.2, "data": {"vqa": 1.0, "video": 1.0}, "starts_as": {"video_projector": "visual_projector"}},
    "audio": {"share": 0.2, "data": {"speech": 1.0}},
    "omni_alignment": {"share": 0.2, "data": {"vqa": 1.0, "video": 1.0, "spoken": 1.0, "text": 1.0}},
}
RATES = {
    "audio": {"audio_encoder": 1e-3, "audio_projector": 1e-3},
    "omni_alignment": dict.fromkeys(ALL, 1e-3),
}


@pytest.fixture
def cell(tmp_path, monkeypatch) -> OmniParameters:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    vision.draw_stand_ins(tmp_path / "things", monkeypatch)
    heard, seen = speech.tiny_parameters(tmp_path / "heard"), vision.tiny_parameters(tmp_path / "seen")
    spoken = {"hears": {"audio_encoder": heard["audio_encoder"]}}
    return OmniParameters(
        **spoken,
        sees={name: seen[name] for name in ("vision_encoder", "image_size", "stride", "frame_size", "max_frames")},
        language_model=heard["language_model"],
        stages=STAGES,
        learning_rates=RATES,
        data={
            "captions": "descriptions",
            "vqa": "stills",
            "video": "scenes:2-3:1-2",
            "speech": f"speech:{heard['corpus']}",
            "spoken": "spoken:espeak:stills",
            "text": "stills",
        },
        tests={"pictures": "stills", "speech": f"speech:{heard['corpus']}", "spoken": "spoken:espeak:stills"},
        num_samples=8,
        num_test=3,
        steps=20,
        batch_tokens=400,
        warmup_steps=1,
        checkpoint_every=1,
    )


def opened(cell):
    encoders = open_encoders(cell)
    data = omni_data(cell, encoders)
    torch.manual_seed(0)
    return omni_model(cell, encoders, open_language_model(cell.language_model), data), data


def trained(cell, model, data, **options):
    given = {"own_data": data.own, "batches": cell_batches(cell), "seed": 0, **options}
    return train_stages(model, cell_stages(cell), data.kinds, TrainingOptions.of(cell), **given)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_every_stage_trains_what_the_paper_trains_and_leaves_the_rest_bit_for_bit(cell):
    model, data = opened(cell)
    record = trained(cell, model, data)
    links = record.ancestry
    assert [link.stage for link in links] == list(STAGES)
    for before, link, stage in zip(links, links[1:], cell_stages(cell)[1:], strict=False):
        changed = {part for part in link.weights if link.weights[part] != before.weights[part]}
        assert changed == set(stage.changed)
    (image_1, image_2, video, audio, omni) = cell_stages(cell)
    assert image_1.trained == ("visual_projector",)
    assert image_2.trained == ("visual_projector", "vision_encoder")
    assert (video.trained, audio.trained) == (("video_projector",), ("audio_encoder", "audio_projector"))
    assert set(omni.trained) == set(ALL)
    assert dict(image_1.learning_rates) == {"visual_projector": 1e-3}  # the paper's
    assert dict(video.learning_rates) == {"video_projector": 4e-6}
    assert set(links[-1].parents) == {links[-2].sha256, links[2].sha256}


def test_pictures_are_features_until_their_encoder_trains_and_pass_through_the_projector_that_does(cell):
    model, data = opened(cell)
    first = data.own["image_1"]["captions"].example(0, model).content[0]
    later = data.own["image_2"]["captions"].example(0, model).content[0]
    assert (first.views.dtype, later.views.dtype) == (torch.float32, torch.uint8)
    of_video = data.own["video"]["vqa"].example(0, model).content[0]
    assert (later.branch, of_video.branch) == ("visual_projector", "video_projector")
    assert {part.dtype for part in (model.audio_projector.feature_mean, model.visual_projector.feature_mean)} == {
        torch.float32
    }
    assert model.visual_projector.feature_std.ne(1).any()
    assert model.audio_projector.feature_std.ne(1).any()


def test_tests_are_asked_as_their_tasks_are_after_every_stage_too(cell):
    model, data = opened(cell)
    asked = []

    def between():
        asked.append(scores_of_tests(answer_tests(model, data.tests, NORMALIZER, most=2)))
        return asked[-1]

    record = trained(cell, model, data, after_stage=between)
    assert list(record.measured) == list(STAGES)
    assert list(record.measured.values()) == asked
    assert {"pictures_accuracy", "speech_character_error_rate", "spoken_accuracy"} <= asked[0].keys()
    kinds = {name: type(how_asked(test, NORMALIZER)) for name, test in data.tests.items()}
    assert kinds == {"pictures": Choose, "speech": Transcribe, "spoken": Choose}
    described = replace(data.tests["pictures"], samples=[Sample(id="a", content=(Text("say"),), answer="so")])
    assert type(how_asked(described, NORMALIZER)) is Write


def test_cells_that_begin_alike_train_their_first_stages_once_and_end_bit_for_bit_as_alone(cell, tmp_path):
    told = []
    kept = {"kept": tmp_path / "kept", "on_step": lambda step, loss: told.append(step)}
    alone, data = opened(cell)
    losses = trained(cell, alone, data).losses
    model, data = opened(cell)
    assert trained(cell, model, data, **kept).losses == losses
    assert told == list(range(20))
    told.clear()
    again, data = opened(cell)
    record = trained(cell, again, data, **kept)
    assert told == [16, 17, 18, 19]
    assert record.losses == losses
    for name, value in alone.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    told.clear()
    # Another last stage begins where the branches end; another seed or start begins anew.
    other = replace(cell, stages={**STAGES, "omni_alignment": {"share": 0.1, "data": {"vqa": 1.0}}})
    model, data = opened(other)
    trained(other, model, data, **kept)
    assert told == [16, 17]
    told.clear()
    with torch.no_grad():
        model.language_model.get_input_embeddings().weight.add_(1e-3)
    trained(other, model, data, **kept)
    assert told == list(range(18))


def test_a_killed_cell_goes_on_in_its_stage(cell, tmp_path):
    model, data = opened(cell)
    losses = trained(cell, model, data).losses

    def killed(step, loss):
        if step == 10:
            raise KeyboardInterrupt

    model, data = opened(cell)
    place = {"checkpoint": tmp_path / "cell.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        trained(cell, model, data, on_step=killed, **place)
    model, data = opened(cell)
    told = []
    record = trained(cell, model, data, on_step=lambda step, loss: told.append(step), **place)
    assert told[0] in (10, 11)
    assert record.losses == losses


def test_packs_of_all_media_are_certified_and_trained_on(cell):
    packed = replace(cell, packed=True, batch_tokens=800)
    model, data = opened(packed)
    record = trained(packed, model, data)
    assert {(one["stage"], one["kind"]) for one in record.certificates} >= {
        ("omni_alignment", kind) for kind in STAGES["omni_alignment"]["data"]
    }
    assert np.isfinite(record.losses).all()


def test_a_saved_cell_hears_and_sees_at_once(cell, tmp_path):
    model, data = opened(cell)
    trained(cell, model, data)
    save_model(model, tmp_path / "model", cell=cell.as_dict())
    loaded = open_saved(tmp_path / "model", device="cpu")
    sample = data.tests["spoken"].samples[0]
    assert {type(part) for part in sample.content} == {Image, Audio}
    sight = {"sight": data.tests["spoken"].sight}
    assert ask(loaded, sample, **sight) == ask(model, sample, **sight)


def test_a_stage_mixes_a_kind_behind_a_filter(cell, monkeypatch):
    first = SampleFilter(
        judge=lambda samples, value: Filtered(
            [one.id for one in samples], [None if place < value else "late" for place in range(len(samples))], name="x"
        ),
        value=2.0,
        state=lambda: "model 1",
    )
    monkeypatch.setattr(sample_filters, "SAMPLE_FILTERS", {"first": lambda: first})
    stages = {"image_1": {"share": 1, "data": {"captions": 1.0, "kept:first=3:captions": 1.0}}}
    told = replace(cell, stages=stages, tests={})
    check_cell(told)
    kinds = omni_data(told, open_encoders(told)).kinds
    assert list(kinds) == ["captions", "kept:first=3:captions"]
    assert kinds["kept:first=3:captions"].ids == kinds["captions"].ids[:3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": {}}, "has no stage; give at least one of: image_1"),
        ({"stages": {"image_9": {"share": 1}}}, "unknown stage 'image_9'"),
        ({"stages": {"image_1": {"data": {"captions": 1}}}}, "share of stage 'image_1' is 0; expected"),
        ({"stages": {"image_1": {"share": 1, "steps": 3}}}, "what is told of stage 'image_1': 'steps'"),
        ({"stages": {"audio": {"share": 1}}, "learning_rates": {}}, "learning rate of audio_encoder .*not found"),
        ({"learning_rates": {**RATES, "image_9": {}}}, "unknown stage of a learning rate: 'image_9'"),
        ({"stages": {"image_1": {"share": 1, "data": {"films": 1}}}}, "kind of data, of those in `data`: 'films'"),
    ],
)
def test_stages_that_cannot_be_are_refused_before_anything_is_made(cell, changes, message):
    with pytest.raises(LabError, match=message):
        omni_data(replace(cell, **changes), {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hears": {"language_model": "words"}}, "language_model in 'hears' is of the whole model"),
        ({"learning_rate": 3e-4}, "learning_rate is 0.0003; of the whole model every stage has its own"),
        ({"num_samples": 0}, "num_samples is 0 and num_test 3; expected at least 1 each"),
        ({"hears": {"projector": "gmlp"}}, "unknown audio projector 'gmlp'"),
        ({"sees": {"projector": "mlps"}}, "unknown visual projector 'mlps'"),
        ({"tests": {"music": "songs"}}, "unknown source of samples 'songs'"),
        ({"data": {"captions": "spoken:espeak"}}, "'spoken:espeak' names no data; expected spoken:ENGINES:DATA"),
        ({"stages": {"image_1": {"share": 1, "data": {"kept:lost:vqa": 1}}}}, "unknown filter of samples 'lost'"),
        ({"stages": {"image_1": {"share": 1, "data": {"kept:loss:films": 1}}}}, "of those in `data`: 'films'"),
    ],
)
def test_a_cell_that_cannot_be_is_refused_before_anything_is_made(cell, changes, message):
    with pytest.raises(LabError, match=message):
        check_cell(replace(cell, **changes))


def test_data_of_which_the_language_model_writes_nothing_is_refused(cell, monkeypatch):
    monkeypatch.setattr("lab.training.cell.transcript_writer", lambda name: lambda text: "")
    with pytest.raises(LabError, match="'descriptions' has no train sample that can be used; left out: 8 not in the"):
        omni_data(cell, {})
