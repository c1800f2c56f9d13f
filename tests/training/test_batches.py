import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.errors import LabError
from lab.parts.joined_sequences import pack_rows
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.omni_model import Example, OmniModel
from lab.parts.packed_attention import PACKED_ATTENTION, PackedAttention, SampleBoundaries
from lab.training.batches import BatchOptions, KindBatches, StageBatches
from lab.training.cell import AUDIO, heard_data
from lab.training.named_parts import open_audio_encoder
from lab.training.parameters import SpeechParameters
from lab.training.samples import Augmentation, SampleExamples
from lab.training.stage_training import _without_weights
from lab.training.stages import Stage
from tests.parts.tiny_models import chunked, language_model, windowed
from tests.parts.tiny_vision import seeing_model
from tests.speech import tiny_parameters
from tests.training.staged import Ready
from tests.training.test_speech import build
from tests.training.vision_splits import split_of, various

RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(0, 4, n).tolist() for n in RNG.integers(0, 12, 40)]
ANSWERS = [RNG.integers(0, 4, n).tolist() for n in RNG.integers(0, 6, 40)]


def texts(model, prompts=PROMPTS, answers=ANSWERS, **options) -> KindBatches:
    examples = [Example(content=[prompt], answer=answer) for prompt, answer in zip(prompts, answers, strict=True)]
    data = Ready(examples)
    return KindBatches(data, model, BatchOptions(packed=True, **{"tokens": 48, **options}), seed=1)


@pytest.fixture(scope="module")
def reader() -> OmniModel:
    return OmniModel(language_model=language_model())


def test_packs_are_certified_and_count_what_they_hold(reader):
    batches = texts(reader)
    certificate = batches.certify(reader, "float32")
    assert certificate.passed
    assert certificate.attention == "per_sample"
    assert batches.statistics.num_samples == 40
    assert batches.statistics.num_tokens == sum(map(len, PROMPTS)) + 40 + sum(map(len, ANSWERS))


def test_the_loss_of_a_batch_does_not_depend_on_those_before(reader):
    straight, jumping = texts(reader), texts(reader)
    for batches in (straight, jumping):
        batches.certify(reader, "float32")
    losses = [straight.loss(reader, straight.read(number, reader)).loss for number in range(12)]
    assert torch.equal(jumping.loss(reader, jumping.read(11, reader)).loss, losses[11])
    assert torch.equal(jumping.loss(reader, jumping.read(2, reader)).loss, losses[2])


def test_a_single_text_can_be_packed(reader):
    batches = texts(reader, prompts=[[0, 1]], answers=[[2]])
    assert batches.certify(reader, "float32").passed
    assert batches.loss(reader, batches.read(3, reader)).num_tokens.tolist() == [2]


def of(network) -> OmniModel:
    return OmniModel(language_model=LanguageModel("tiny", network, CharacterCodec(alphabet="abcd"), ""))


def test_an_example_longer_than_the_model_looks_back_is_refused_before_anything_is_packed():
    prompts, answers = [[0, 1], [2] * 9, [3]], [[1], [2], []]
    assert texts(of(windowed(11)), prompts, answers).statistics.num_packs == 1
    told = "example 't1' has 11 tokens, and MistralForCausalLM looks back 10 tokens, .*; do not pack it"
    with pytest.raises(LabError, match=told):
        texts(of(windowed(10)), prompts, answers)


def test_the_packs_with_the_longest_example_and_with_the_most_are_probed_whole():
    torch.manual_seed(0)
    model = of(chunked(64, no_rope_layers=[1, 0], floor_scale=50, attn_scale=1.0))
    prompts, answers = [[0] * 20, *[[1]] * 20], [[1, 2]] * 21

    def probed(tokens: int) -> list[str]:
        checks = texts(model, prompts, answers, tokens=tokens).certify(model, "float32").checks
        return [check.name for check in checks if check.name.startswith("pack of")]

    # 23 and four of 4, then ten of 4.
    told = "pack of {} tokens, {} the longest sample's: loss"
    assert probed(40) == [told.format(39, 23), told.format(40, 4)]
    with pytest.raises(LabError, match=f"packed samples are not kept apart .*: {told.format(103, 23)} by"):
        probed(103)


def test_no_pack_is_trained_on_without_its_certificate(reader, monkeypatch):
    batches, inner = texts(reader), PACKED_ATTENTION["per_sample"]
    with pytest.raises(LabError, match="these packs are not certified"):
        batches.loss(reader, batches.read(0, reader))

    def everywhere(query, key, value, boundaries, scale, dropout):
        whole = SampleBoundaries((len(query),), torch.tensor([0, len(query)]))
        return inner.attend(query, key, value, whole, scale, dropout)

    monkeypatch.setitem(PACKED_ATTENTION, "per_sample", PackedAttention(everywhere))
    with pytest.raises(LabError, match="packed samples are not kept apart"):
        batches.certify(reader, "float32")


def test_what_cannot_be_packed_is_refused(reader):
    with pytest.raises(LabError, match="sample 't0' has 60 tokens, more than the budget of 48"):
        texts(reader, prompts=[[0] * 59], answers=[[]])


def test_a_padded_batch_has_as_many_examples_as_asked_for_or_as_have_its_tokens_together(reader):
    data = Ready([Example(content=[[0] * 7], answer=[1])] * 20)

    def sizes(**options) -> set[int]:
        batches = KindBatches(data, reader, BatchOptions(**options), seed=0)
        return {len(batches.indices(number)) for number in range(6)}

    assert sizes(size=3) == {3}
    # Ten tokens each: prompt, start, answer and end.
    assert sizes(tokens=52) == {5}
    with pytest.raises(LabError, match="there is no example to train on"):
        KindBatches(Ready([]), reader, BatchOptions(), seed=0)


@pytest.fixture
def cell(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    return SpeechParameters(**tiny_parameters(tmp_path))


def test_utterances_in_packs_have_the_losses_of_the_padded_path(cell):
    encoder = open_audio_encoder(cell.audio_encoder)
    data = replace(heard_data(cell, encoder)[AUDIO], augmentation=Augmentation())
    model = build(cell, encoder, {AUDIO: data})
    batches = KindBatches(data, model, BatchOptions(tokens=120, packed=True), seed=0)
    assert batches.certify(model, "float32").passed
    seen: list[int] = []
    for number in range(batches.statistics.num_packs):
        chosen = batches.indices(number)
        seen += chosen
        expected = model([data.example(index, model) for index in chosen])
        found = batches.loss(model, batches.read(number, model))
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-4, atol=1e-4)
    assert sorted(seen) == list(range(len(data)))


def test_utterances_whose_encoder_trains_are_certified_through_it(cell):
    cell = replace(cell, train_encoder=True)
    encoder = open_audio_encoder(cell.audio_encoder)
    data = heard_data(cell, encoder)[AUDIO]
    model = build(cell, encoder, {AUDIO: data})
    batches = KindBatches(data, model, BatchOptions(tokens=120, packed=True), seed=0)
    certificate = batches.certify(model, "float32")
    assert certificate.passed
    assert "features" not in certificate.idle
    assert batches.loss(model, batches.read(0, model)).loss.isfinite().all()


@pytest.fixture(scope="module")
def model() -> OmniModel:
    return seeing_model()


def stage(steps: int, **weights: float) -> Stage:
    return Stage(
        name="s",
        paper="none",
        learning_rates={"video_projector": 1e-3},
        data=weights,
        steps=steps,
    )


@pytest.fixture
def sources() -> dict[str, SampleExamples]:
    return {
        "image_text": split_of(various("i", 13, frames=1), name="i", branch="visual_projector"),
        "video_text": split_of(various("v", 17), name="v"),
        "other": split_of(various("o", 5), name="o"),
    }


def batches(sources, model, steps: int = 12, seed: int = 1, before=None, weights=None, **options) -> StageBatches:
    chosen = stage(steps, **(weights or {"image_text": 0.3, "video_text": 0.7}))
    given = BatchOptions(**{"tokens": 60, **options})
    return StageBatches(sources, model, chosen, given, seed=seed, before=before or {})


@pytest.mark.parametrize("order", [range(11, -1, -1), [5, 5, 2, 11, 6, 7, 0, 3], [7, 8, 9, 10, 11]])
def test_a_steps_batch_is_the_same_in_whatever_order_steps_are_asked_for(sources, model, order):
    whole = batches(sources, model)
    expected = [whole.indices(step) for step in range(12)]
    other = batches(sources, model)
    assert [other.indices(step) for step in order] == [expected[step] for step in order]
    other.costs()
    other.padding_share()
    assert [other.indices(step) for step in order] == [expected[step] for step in order]
    assert [batches(sources, model, seed=2).indices(step) for step in range(12)] != expected


@pytest.mark.parametrize(
    ("steps", "weights", "expected"),
    [
        (12, {"image_text": 0.3, "video_text": 0.7}, {"image_text": 4, "video_text": 8}),
        (10, {"image_text": 3.0, "video_text": 7.0}, {"image_text": 3, "video_text": 7}),
        (3, {"image_text": 1.0, "video_text": 1.0}, {"image_text": 2, "video_text": 1}),
        (1, {"image_text": 0.3, "video_text": 0.7}, {"video_text": 1}),
        (4, {"video_text": 0.2}, {"video_text": 4}),
        (8, {"image_text": 1.0, "video_text": 1.0, "other": 1.0}, {"image_text": 3, "video_text": 3, "other": 2}),
        (10, {"image_text": 0.45, "video_text": 0.45, "other": 0.1}, {"image_text": 5, "video_text": 4, "other": 1}),
        (10, {"image_text": 0.44, "video_text": 0.43, "other": 0.13}, {"image_text": 5, "video_text": 4, "other": 1}),
    ],
)
def test_every_kind_has_its_share_of_the_steps(sources, model, steps, weights, expected):
    found = batches(sources, model, steps, weights=weights)
    assert Counter(found.kinds) == expected
    assert Counter(found.indices(step)[0] for step in range(steps)) == expected


def test_kinds_are_mixed_and_not_one_after_the_other(sources, model):
    kinds = batches(sources, model, 40, weights={"image_text": 1.0, "video_text": 1.0}).kinds
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    assert changes > 10


def test_no_example_stands_twice_in_an_epoch_and_all_have_their_turn(sources, model):
    found = batches(sources, model, 60, weights={"video_text": 1.0})
    size, count = len(found.indices(0)[1]), len(sources["video_text"])
    per_epoch = count // size
    chosen = [found.indices(step)[1] for step in range(60)]
    assert {len(batch) for batch in chosen} == {size}
    for start in range(0, 60 - per_epoch, per_epoch):
        epoch = [i for batch in chosen[start : start + per_epoch] for i in batch]
        assert len(set(epoch)) == len(epoch) == per_epoch * size
    assert {i for batch in chosen for i in batch} == set(range(count))


def test_a_batch_holds_about_its_tokens_whatever_the_kind(sources, model):
    found = batches(sources, model, 30, tokens=80)
    for kind in ("image_text", "video_text"):
        held = [
            sum(found.of_kind[kind].lengths[i] for i in batch)
            for of, batch in (found.indices(step) for step in range(30))
            if of == kind
        ]
        assert np.mean(held) == pytest.approx(80, rel=0.25)


def test_a_later_stage_goes_on_where_the_earlier_ones_stopped(sources, model):
    long = batches(sources, model, 20, weights={"image_text": 1.0})
    first = batches(sources, model, 5, weights={"image_text": 1.0})
    second = batches(sources, model, 12, before=first.seen)
    third = batches(sources, model, 4, weights={"image_text": 1.0}, before=second.seen)
    images = [
        batch
        for part in (first, second, third)
        for kind, batch in map(part.indices, range(len(part.kinds)))
        if kind == "image_text"
    ]
    assert images == [long.indices(step)[1] for step in range(len(images))]
    assert len(images) == 5 + 4 + 4


def test_costs_and_padding_are_those_counted_one_by_one(sources, model):
    found = batches(sources, model)
    tokens = frames = 0
    padded = []
    for step in range(12):
        kind, chosen = found.indices(step)
        split, rows = sources[kind], []
        for i in chosen:
            (read,) = model.read([split.example(i, model)])
            rows.append(
                len(read.content[0].values) + len(split.samples[i].question) + 1 + len(split.samples[i].answer) + 1
            )
            frames += len(split.samples[i].content[0].read().frames)
        tokens += sum(rows)
        padded.append(1 - sum(rows) / (len(rows) * max(rows)))
    assert found.costs() == (tokens, frames)
    assert found.padding_share() == pytest.approx(np.mean(padded))


def test_loss_of_a_step_is_that_of_its_examples_one_by_one(sources, model):
    found = batches(sources, model)
    for step in (3, 0):
        kind, chosen = found.indices(step)
        split = sources[kind]
        batch = found.loss(model, found.read(step, model))
        for row, i in enumerate(chosen):
            ids = model.codec.encode(split.samples[i].answer)
            alone = model([split.example(i, model)])
            torch.testing.assert_close(batch.loss[row], alone.loss[0], rtol=1e-4, atol=1e-4)
            assert batch.num_tokens[row] == len(ids) + 1


def test_missing_kinds_and_examples_that_are_too_long_are_refused(sources, model):
    with pytest.raises(LabError, match=r"unknown kind of data 'audio_text'.*; choose one of: image_text"):
        batches(sources, model, weights={"audio_text": 1.0})
    longest = max(sources["video_text"].num_tokens(i, model) for i in range(17))
    assert batches(sources, model, tokens=longest)
    with pytest.raises(
        LabError, match=rf"example 'v\d+' takes {longest} tokens, more than {longest - 1}; allow more tokens"
    ):
        batches(sources, model, tokens=longest - 1)


def test_a_pack_holds_what_fits_its_tokens_and_an_epoch_of_packs_every_example_once(sources, model):
    packed = batches(sources, model, steps=40, packed=True, weights={"video_text": 1.0})
    lengths = [length - 1 for length in packed.of_kind["video_text"].lengths]
    packs = packed.of_kind["video_text"].statistics.num_packs
    for epoch in range(40 // packs):
        chosen = [packed.indices(step)[1] for step in range(epoch * packs, (epoch + 1) * packs)]
        assert sorted(itertools.chain(*chosen)) == list(range(17))
        assert all(sum(lengths[i] for i in pack) <= 60 for pack in chosen)
    assert packed.padding_share() == 0


def test_the_loss_of_a_pack_is_that_of_its_examples_padded(sources):
    torch.manual_seed(0)
    model = seeing_model()
    packed = batches(sources, model, packed=True)
    packed.certify(model, "float32")
    for step in range(6):
        kind, chosen = packed.indices(step)
        one, other = (
            packed.loss(model, packed.read(step, model)),
            model([sources[kind].example(i, model) for i in chosen]),
        )
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-4, atol=1e-5)
        assert torch.equal(one.num_tokens, other.num_tokens)


def test_a_later_packed_stage_goes_on_in_the_packs(sources, model):
    first = batches(sources, model, steps=5, packed=True)
    later = batches(sources, model, steps=6, packed=True, before=first.seen)
    whole = batches(sources, model, steps=40, packed=True)
    for kind in ("image_text", "video_text"):
        seen = [stage.indices(s)[1] for stage in (first, later) for s, k in enumerate(stage.kinds) if k == kind]
        expected = [whole.indices(s)[1] for s, k in enumerate(whole.kinds) if k == kind]
        assert seen == expected[: len(seen)]


def test_packs_are_certified_once_for_each_kind_of_data(sources, model):
    found = batches(sources, model, packed=True).certify(model, "float32")
    assert set(found) == {"image_text", "video_text"}
    assert all(certificate.passed and not certificate.idle for certificate in found.values())
    assert batches(sources, model).certify(model, "float32") == {}


def test_a_leak_in_packs_stops_the_stage_before_it_trains(sources, model, monkeypatch):
    def going_on(rows, positions):
        return pack_rows(rows, torch.arange(sum(map(len, rows))).split([len(row) for row in rows]))

    monkeypatch.setattr("lab.parts.omni_model.pack_rows", going_on)
    with pytest.raises(LabError, match="packed samples are not kept apart"):
        batches(sources, model, packed=True).certify(model, "float32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packed": True, "size": 3}, "a batch of 3 examples, but a pack holds as many as fit its 60 tokens"),
        ({"size": -1}, "a batch of 60 tokens and -1 examples; expected at least 1 and 0"),
        ({"tokens": 0}, "a batch of 0 tokens and 0 examples"),
    ],
)
def test_batches_that_no_stage_has_are_refused(options, message):
    with pytest.raises(LabError, match=message):
        BatchOptions(**{"tokens": 60, **options})


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_read_is_the_same_without_the_weights_and_for_a_gpu(sources, model, packed):
    found = batches(sources, model, packed=packed)
    batch = found.read(3, model)
    other = batches(sources, model, packed=packed).read(3, _without_weights(model))
    moved = other.to(torch.device("meta"))
    assert batch.kind == other.kind == moved.kind
    for one, same, gone in zip(batch.examples, other.examples, moved.examples, strict=True):
        assert torch.equal(one.content[0].views, same.content[0].views)
        assert gone.content[0].views.device.type == "meta"
        assert one.content[1:] == same.content[1:] == gone.content[1:]
        assert one.answer == same.answer
    assert other.to(torch.device("cpu")) is other
