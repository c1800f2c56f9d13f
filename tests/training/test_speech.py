from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.data.normalizers import NORMALIZERS, text_errors
from lab.data.sample import Audio, Drawn, Sample, Text
from lab.data.speech.corpora import load_corpus
from lab.errors import LabError
from lab.evaluation.answering import Transcribe, _batches, answer
from lab.evaluation.costs import hearing_costs
from lab.evaluation.items import NAMES, scores
from lab.training.batches import BatchOptions, KindBatches
from lab.training.cell import AUDIO, cell_batches, cell_stages, heard_data, hearing_model, open_split
from lab.training.loop import TrainingOptions
from lab.training.named_parts import OWN_LANGUAGE_MODELS, open_audio_encoder, open_language_model, transcript_writer
from lab.training.parameters import SpeechParameters
from lab.training.samples import Augmentation, SampleExamples
from lab.training.stage_training import StagesRecord, _without_weights, train_stages
from tests.data.fakes import tone
from tests.speech import tiny_parameters, write_corpus, write_whisper

NORMALIZER = NORMALIZERS["whisper_english"]


@pytest.fixture
def cell(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    return SpeechParameters(**tiny_parameters(tmp_path))


def build(cell, encoder, data):
    language_model = open_language_model(cell.language_model)
    torch.manual_seed(0)
    return hearing_model(cell, encoder, language_model, data)


def trained(cell, model, data, **options) -> StagesRecord:
    given = {"batches": cell_batches(cell), "seed": 0, **options}
    return train_stages(model, cell_stages(cell), data, TrainingOptions(), **given)


def test_a_cell_trains_and_is_measured_on_every_utterance(cell):
    encoder = open_audio_encoder(cell.audio_encoder)
    data = heard_data(cell, encoder)
    assert {name: len(split) for name, split in data.items()} == {AUDIO: 12, "dev": 3, "test": 3}
    model = build(cell, encoder, data)
    record = trained(replace(cell, steps=20, learning_rate=3e-3), model, data)
    assert np.mean(record.losses[-5:]) < np.mean(record.losses[:5])
    how = Transcribe(normalizer=NORMALIZER, num_beams=2)
    table = answer(model, data["test"], replace(how, batch_size=2))
    assert set(NAMES) <= set(table)
    assert table["id"].tolist() == data["test"].ids
    assert table["group"].tolist() == [NORMALIZER(one.answer) for one in data["test"].samples]
    assert (table["num_tokens"] == [len(data["test"].write(one.answer)) + 1 for one in data["test"].samples]).all()
    alone = answer(model, data["test"], replace(how, batch_size=1))
    assert np.allclose(table["loss"], alone["loss"], rtol=1e-4)
    assert set(scores(table, "test")) == {
        "test_character_error_rate",
        "test_word_error_rate",
        "test_loss",
    }
    assert hearing_costs(model)["audio_tokens_per_second"] == 25.0


def test_the_same_step_gives_the_same_loss_in_whatever_order_steps_are_asked_for(cell):
    encoder = open_audio_encoder(cell.audio_encoder)
    data = heard_data(cell, encoder)
    model = build(cell, encoder, data)

    def losses(steps):
        utterances = replace(data[AUDIO], augmentation=Augmentation(1, 5, 0.1, True))
        batches = KindBatches(utterances, model, BatchOptions(size=4), seed=3)
        return [batches.loss(model, batches.read(step, model)).loss.tolist() for step in steps]

    in_order = losses(range(7))
    assert losses([5]) == [in_order[5]]
    assert losses([4, 2, 6]) == [in_order[step] for step in (4, 2, 6)]


def test_an_encoder_trained_with_the_projector_changes_and_its_fixed_positions_do_not(cell):
    cell = replace(cell, train_encoder=True)
    encoder = open_audio_encoder(cell.audio_encoder)
    data = heard_data(cell, encoder)
    assert data[AUDIO].heard == ()
    model = build(cell, encoder, data)
    before = {name: value.clone() for name, value in encoder.named_parameters()}
    trained(replace(cell, steps=2, learning_rate=1e-2), model, data)
    changed = {name for name, value in encoder.named_parameters() if not torch.equal(value, before[name])}
    assert any("fc1" in name for name in changed)
    assert not any("embed_positions" in name for name in changed)
    assert len(answer(model, data["test"], Transcribe(normalizer=NORMALIZER))) == 3


def test_stored_features_are_what_the_encoder_gives(cell):
    encoder = open_audio_encoder(cell.audio_encoder)
    data = heard_data(cell, encoder)["test"]
    model = build(cell, encoder, {AUDIO: data})
    live = [encoder.encode(one.sound.read()) for one in data.samples]
    for index, frames in enumerate(live):
        example = data.example(index, model)
        (sound,) = example.content
        assert len(sound.values) == data.num_frames(index, model)
        assert model.num_tokens(example) == data.num_tokens(index, model)
        assert np.array_equal(frames.astype(np.float16), sound.values.numpy().astype(np.float16))


def test_a_clip_is_encoded_once_and_its_features_are_the_same_in_whatever_list(cell, monkeypatch):
    encoder = open_audio_encoder(cell.audio_encoder)
    corpus, calls = load_corpus(cell.corpus), []
    encode = type(encoder).encode
    monkeypatch.setattr(type(encoder), "encode", lambda self, clip: calls.append(len(clip)) or encode(self, clip))
    few = open_split(corpus, "train", encoder, limit=3)
    assert len(calls) == 3
    every = open_split(corpus, "train", encoder)
    assert len(calls) == len(every) > 3
    written_otherwise = open_split(corpus, "train", encoder, write=str.upper, prompt="say")
    assert len(calls) == len(every)
    for one in few.samples:
        kept = [split.heard[0][one.id].values for split in (few, every, written_otherwise)]
        assert np.array_equal(kept[0], kept[1])
        assert np.array_equal(kept[0], kept[2])
        assert np.array_equal(kept[0], encode(encoder, one.sound.read()).astype(np.float16))


def test_the_prompt_stands_before_every_sound(cell):
    encoder = open_audio_encoder(cell.audio_encoder)
    data = heard_data(replace(cell, prompt="abc"), encoder)[AUDIO]
    model = build(cell, encoder, {AUDIO: data})
    prompt, sound = data.example(0, model).content
    assert prompt == model.codec.encode("abc")
    assert len(sound.values) == data.num_frames(0, model)
    assert data.num_tokens(0, model) == heard_data(cell, encoder)[AUDIO].num_tokens(0, model) + 3


def test_a_limit_draws_the_same_utterances_each_time_and_keeps_their_order(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    corpus = load_corpus(write_corpus(tmp_path / "speech"))
    encoder = open_audio_encoder(write_whisper(tmp_path / "whisper"))
    drawn = open_split(corpus, "train", encoder, limit=5, features=False).ids
    order = [u.id for u in corpus.split("train")]
    assert len(drawn) == 5
    assert drawn == sorted(drawn, key=order.index)
    assert drawn == open_split(corpus, "train", encoder, limit=5, features=False).ids


@pytest.mark.parametrize("language_model", [*OWN_LANGUAGE_MODELS, "OWNER/NAME"])
@pytest.mark.parametrize("spelled", ["{}...", "({}!) Well . . .", "“{}’s”", "{} -- *really*", "{}, 3.5%", "oh {}"])
def test_a_perfect_transcript_has_no_error(tmp_path, monkeypatch, language_model, spelled):
    """Whatever the corpus's spelling, the language model that writes it and the normaliser."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    corpus = load_corpus(write_corpus(tmp_path / "speech", spelled=lambda text: spelled.format(text.capitalize())))
    encoder = open_audio_encoder(write_whisper(tmp_path / "whisper"))
    write = transcript_writer(language_model)
    for normalizer in NORMALIZERS.values():
        if not any(write(one.answer) for one in corpus.split("test")):
            continue  # digits, which a model of letters cannot write, are left out
        found = open_split(corpus, "test", encoder, write=write, keep=normalizer, features=False)
        answers = [one.answer for one in found.samples]
        written = [write(answer) for answer in answers]
        items = text_errors(answers, written, normalizer, found.ids)
        assert items[["character_errors", "word_errors", "wrong_answers"]].to_numpy().sum() == 0


def test_transcripts_a_normaliser_empties_are_left_out_and_none_left_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    corpus = load_corpus(write_corpus(tmp_path / "speech"))
    encoder = open_audio_encoder(write_whisper(tmp_path / "whisper"))
    kept = open_split(corpus, "train", encoder, keep=lambda text: text if "anna" in text else "", features=False)
    assert {"anna" in one.answer for one in kept.samples} == {True}
    with pytest.raises(LabError, match="has no usable utterance in its train split"):
        open_split(corpus, "train", encoder, keep=lambda text: "", features=False)


def test_what_only_brackets_hold_is_no_speech_though_the_language_model_could_write_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    corpus = load_corpus(write_corpus(tmp_path / "speech", spelled="({})".format))
    encoder = open_audio_encoder(write_whisper(tmp_path / "whisper"))
    write, normalizer = transcript_writer("character"), NORMALIZERS["whisper_english"]
    assert all(normalizer(write(one.answer)) for one in corpus.split("test"))
    with pytest.raises(LabError, match="has no usable utterance in its test split"):
        open_split(corpus, "test", encoder, write=write, keep=normalizer, features=False)


def test_a_sequence_over_the_limit_is_refused_with_its_utterance(cell):
    encoder = open_audio_encoder(cell.audio_encoder)
    data = heard_data(cell, encoder)
    model = build(cell, encoder, data)
    with pytest.raises(LabError, match=r"example '.*' takes \d+ tokens, more than 20"):
        KindBatches(data[AUDIO], model, BatchOptions(tokens=20), seed=0)


def test_a_sound_that_cannot_be_heard_is_left_out_and_named_with_its_sample_and_source(tmp_path):
    encoder = open_audio_encoder(write_whisper(tmp_path / "whisper"))
    good = Sample(id="a", content=(Audio(Drawn(tone, (0.5,))),), answer="x", source="toy")
    bad = Sample(id="b", content=(Audio(b"no sound"),), answer="x", source="toy")
    kept = SampleExamples(samples=[bad, good], name="toy").heard_by(encoder, key="k", speeds=(1.0, 0.9))
    assert kept.samples == [good]
    assert [store.num_rows("a") for store in kept.heard] == [25, 28]
    ((_, (told,)),) = kept.left_out.items()
    assert told.startswith("sample 'b' of 'toy': audio bytes is not audio that can be read")
    with pytest.raises(LabError, match="sample 'b' of 'toy': audio bytes is not audio that can be read"):
        SampleExamples(samples=[bad], name="toy").heard_by(encoder, key="k")


def test_a_sound_longer_than_the_window_is_not_heard_where_there_are_no_weights(cell):
    encoder = open_audio_encoder(cell.audio_encoder)
    model = build(replace(cell, train_encoder=True), encoder, {})
    long = Sample(id="a", content=(Audio(Drawn(tone, (31.0,))),), answer="x", source="toy")
    with pytest.raises(LabError, match=r"sample 'a' of 'toy': a sound of 496000 samples is longer .* with workers 0"):
        SampleExamples(samples=[long], write=str.strip).example(0, _without_weights(model))


def test_sounds_of_any_source_are_kept_with_pictures_and_texts_around_them(cell):
    encoder = open_audio_encoder(cell.audio_encoder)
    model = build(cell, encoder, heard_data(cell, encoder))
    sounds = [Audio(Drawn(tone, (seconds,))) for seconds in (0.7, 0.5)]
    mixed = Sample(id="a", content=(Text("abc"), sounds[0], Text("or"), sounds[1]), answer="x", source="toy")
    kept = SampleExamples(samples=[mixed], name="toy", write=str.strip).heard_by(encoder, key="k", speeds=(1.0, 2.0))
    first, sound, second, other = kept.example(0, model).content
    assert (first, second) == (model.codec.encode("abc"), model.codec.encode("or"))
    assert (len(sound.values), len(other.values)) == (35, 25)
    assert kept.num_frames(0, model) == 60
    assert kept.num_tokens(0, model) == model.num_tokens(kept.example(0, model))
    drawn = {len(kept.training_example(0, model, np.random.default_rng(seed)).content[1].values) for seed in range(9)}
    assert drawn == {35, 18}


def test_a_second_sound_is_never_taken_for_that_of_another_sample(cell):
    encoder = open_audio_encoder(cell.audio_encoder)
    model = build(cell, encoder, heard_data(cell, encoder))
    sounds = [Audio(Drawn(tone, (seconds,))) for seconds in (0.7, 0.5, 0.9)]
    samples = [
        Sample(id="a", content=tuple(sounds[:2]), answer="x", source="toy"),
        Sample(id="a#1", content=(sounds[2],), answer="x", source="toy"),
    ]
    kept = SampleExamples(samples=samples, name="toy", write=str.strip).heard_by(encoder, key="k")
    assert [kept.num_frames(place, model) for place in (0, 1)] == [60, 45]


def test_augmentation_keeps_shape_and_masks_with_the_channel_means():
    rng = np.random.default_rng(0)
    frames, mean, std = np.ones((200, 3), np.float32), np.full(3, 7, np.float32), np.ones(3, np.float32)
    same = Augmentation()(frames, rng, mean=mean, std=std, rate=4)
    assert np.array_equal(same, frames)
    masked = Augmentation(num_time_masks=2, time_mask_frames=20)(frames, rng, mean=mean, std=std, rate=4)
    assert masked.shape == frames.shape
    assert set(np.unique(masked)) == {1.0, 7.0}
    assert np.array_equal(frames, np.ones((200, 3)))
    shifted = {len(Augmentation(shift=True)(frames, rng, mean=mean, std=std, rate=4)) for _ in range(50)}
    assert shifted == {200, 201, 202, 203}


def test_texts_are_written_in_the_character_models_alphabet():
    spoken_text = transcript_writer("character")
    assert spoken_text("Whoah! That's IT...") == "whoah that's it"
    assert spoken_text("Room 12.") == ""


def test_batches_to_measure_are_cut_by_number_and_by_what_is_padded():
    sizes, one = [5, 6, 7, 8, 40, 50], [1] * 6
    assert list(_batches(sizes, one, 80, batch_size=3)) == [[0, 1, 2], [3, 4], [5]]  # 2 x 40 fits, 2 x 50 does not
    assert list(_batches([100, 90], [1, 1], 80, batch_size=3)) == [[1], [0]]
    # Rows of one item stay together: 2 of 5 and 3 of 6 would take 30, 3 of 6 and 1 of 7 take 28.
    assert list(_batches([5, 6, 7], [2, 3, 1], 29)) == [[0], [1, 2]]
