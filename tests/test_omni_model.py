"""A sample with sound, pictures, a video and text on the whole road, with small random models of the real classes."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from PIL import Image as Picture
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lab import cli
from lab.data.sample import Audio, Image, Sample, Text, Video
from lab.data.video import Sight
from lab.errors import LabError
from lab.evaluation.answering import ask
from lab.parts.audio_encoders import AudioEncoder
from lab.parts.audio_projectors import build_audio_projector
from lab.parts.decoding import decode
from lab.parts.language_models import CharacterCodec, LanguageModel
from lab.parts.media_tokens import AudioTokens, VisualTokens
from lab.parts.omni_model import Example, OmniModel
from lab.parts.saved_model import DESCRIPTION, WEIGHTS, load_model, save_model
from lab.parts.vision_encoders import SiglipBackbone, VisionEncoder
from lab.parts.visual_projectors import build_visual_projector
from lab.training.batches import BatchOptions
from lab.training.loop import TrainingOptions
from lab.training.packing_certificate import certify
from lab.training.samples import SampleExamples, Tiling
from lab.training.stage_training import train_stages
from lab.training.stages import PARTS, Stage
from tests.data.fakes import tone
from tests.data.films import film
from tests.training.staged import Ready

WIDTH, SPREAD, IMAGE_SIZE = 16, 0.3, 28
CODEC = CharacterCodec(alphabet="abcdefghijklmnopqrstuvwxyz ")
LOOKING: dict[str, Any] = {"tiling": Tiling(max_tiles=2), "sight": Sight(max_frames=3)}


def build(*, tied: bool = False) -> OmniModel:
    """Ears, eyes and a language model, all random."""
    torch.manual_seed(0)
    whisper = WhisperConfig(
        d_model=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, decoder_layers=1, init_std=SPREAD
    )
    siglip = SiglipVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    qwen2 = Qwen2Config(
        vocab_size=CODEC.vocab_size,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=SPREAD,
        tie_word_embeddings=tied,
    )
    sizes = {"hidden_size": 8, "output_size": WIDTH}
    visual = [
        VisualTokens(projector=build_visual_projector("mean_pool", **sizes), marks_places=True, newline=tiled)
        for tiled in (True, False)
    ]
    model = OmniModel(
        language_model=LanguageModel("qwen2, random", Qwen2ForCausalLM(qwen2), CODEC, "0"),
        visual_projector=visual[0],
        video_projector=visual[1],
        audio_projector=AudioTokens(projector=build_audio_projector("conv_gmlp", downsample_rate=4, **sizes)),
        vision_encoder=VisionEncoder(
            backbone=SiglipBackbone(siglip=SiglipVisionModel(siglip)), name="siglip", mean=[0.5] * 3, std=[0.5] * 3
        ),
        audio_encoder=AudioEncoder(
            whisper=WhisperEncoder(whisper), feature_extractor=WhisperFeatureExtractor(), window="cropped"
        ),
    )
    for name in ("visual_projector", "video_projector", "audio_projector"):
        for parameter in getattr(model, name).parameters():
            nn.init.normal_(parameter, std=SPREAD)
    return model.eval()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A sound of half a second, a wide and a square picture, and a film of three seconds."""
    soundfile.write(tmp_path / "a.wav", tone(0.5), 16000)
    Picture.new("RGB", (56, 28), (200, 30, 90)).save(tmp_path / "wide.png")
    Picture.new("RGB", (28, 28), (20, 130, 90)).save(tmp_path / "square.png")
    film(tmp_path / "c.mp4", 30)
    return {path.stem: path for path in tmp_path.iterdir()}


@pytest.fixture
def sample(files: dict[str, Path]) -> Sample:
    return Sample(
        id="mixed",
        source="a test",
        content=(
            Image(files["wide"]),
            Text("what do you hear"),
            Audio(files["a"]),
            Video(files["c"]),
            Text("and see"),
            Image(files["square"]),
        ),
        answer="a tone",
    )


def example_of(sample: Sample, model: OmniModel, **options: Any) -> Example:
    return SampleExamples(samples=[sample], **options).example(0, model)


def others(sample: Sample) -> list[Sample]:
    """The same parts in other orders, each with another answer."""
    first = replace(sample, id="turned", content=sample.content[::-1], answer="no")
    return [first, sample, replace(sample, id="heard", content=sample.content[1:3], answer="yes it is")]


def test_parts_are_named_as_stages_name_them() -> None:
    assert set(build().parts()) == set(PARTS)


def test_a_mixed_sample_is_laid_out_in_its_own_order(sample: Sample) -> None:
    model = build()
    example = example_of(sample, model, **LOOKING)
    embedded = model.embed([example]).embeddings[0]
    tokens = [model.segment_tokens(segment) for segment in example.content]
    # A view is one token; two tiles with a newline after their row, the whole before them. 25 frames, four a token.
    # The film's frames of 48 x 32 pixels are seen in two tiles as well, without a newline.
    assert tokens == [1 + 2 + 1, 16, 7, 3 * (1 + 2), 7, 1]
    assert len(embedded) == sum(tokens) + 1 + len("a tone") == model.num_tokens(example) - 1
    words = model.language_model.get_input_embeddings().weight
    torch.testing.assert_close(embedded[4:20], words[CODEC.encode("what do you hear")])
    (sound,) = model.read([Example(content=[example.content[2]])])
    torch.testing.assert_close(embedded[20:27], sound.content[0].values)


@pytest.mark.parametrize("packed", [False, True])
def test_a_stage_on_mixed_samples_trains_every_part_that_it_names_and_no_other(sample: Sample, packed: bool) -> None:
    model = build()
    examples = [example_of(one, model, **LOOKING) for one in others(sample)]
    trained = ("vision_encoder", "visual_projector", "video_projector", "audio_encoder", "audio_projector")
    stage = Stage(
        name="all_but_the_language_model",
        paper="none",
        frozen=("language_model",),
        learning_rates=dict.fromkeys(trained, 1e-2),
        data={"mixed": 1.0},
        steps=3,
        schedule="constant",
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    data = {"mixed": Ready(examples)}
    batches = BatchOptions(tokens=200, packed=True) if packed else BatchOptions(size=3)
    options = TrainingOptions(precision="float32", workers=1)
    record = train_stages(model, [stage], data, options, batches=batches, seed=0)
    assert record.losses[-1] < record.losses[0]
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {
        n
        for n in before
        if n.partition(".")[0] in trained and not n.startswith("audio_encoder.whisper.embed_positions")
    }


def test_mixed_samples_are_certified_in_packs_and_have_the_losses_of_the_padded_batch(sample: Sample) -> None:
    model = build()
    examples = [example_of(one, model, **LOOKING) for one in others(sample)]
    certificate = certify(model, examples).require()
    assert certificate.idle == ()
    torch.testing.assert_close(model.packed(examples).loss.loss, model(examples).loss, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def read_anew(model: OmniModel, example: Example, most: int) -> list[int]:
    """Greedy decoding without a cache: the whole sequence is read for every token."""
    found: list[int] = []
    while len(found) < most:
        joined = model.embed([replace(example, answer=found)])
        logits = model.language_model(
            inputs_embeds=joined.embeddings, position_ids=joined.position_ids, use_cache=False
        ).logits
        if (token := int(logits[0, -1].argmax())) == model.codec.end_id:
            break
        found.append(token)
    return found


def test_mixed_samples_are_decoded_with_cache_as_without_together_as_alone(sample: Sample) -> None:
    model = build()
    examples = [example_of(one, model, **LOOKING) for one in others(sample)]
    expected = [read_anew(model, example, 6) for example in examples]
    assert len({tuple(answer) for answer in expected}) > 1
    assert decode(model, examples, max_new_tokens=6) == expected
    beams = decode(model, examples, max_new_tokens=6, num_beams=3)
    assert beams == [decode(model, [example], max_new_tokens=6, num_beams=3)[0] for example in examples]


@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_model_gives_the_same_answers_and_losses(tmp_path: Path, sample: Sample, tied: bool) -> None:
    model = build(tied=tied)
    state = torch.get_rng_state()
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.audio_encoder.key == model.audio_encoder.key
    assert loaded.vision_encoder.key == model.vision_encoder.key
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    example = example_of(sample, loaded, **LOOKING)
    assert torch.equal(loaded([example]).loss, model([example]).loss)
    assert ask(loaded, sample, **LOOKING) == ask(model, sample, **LOOKING)


def test_a_part_may_be_kept_by_name_or_added_and_must_be_the_same_when_it_is_opened(tmp_path: Path) -> None:
    model = build()
    encoder, model.audio_encoder = model.audio_encoder, None
    asked = {"name": "whisper", "window": "cropped"}
    save_model(model, tmp_path, by_name={"audio_encoder": (asked, encoder)})
    assert not (tmp_path / f"audio_encoder{WEIGHTS}").exists()
    opened: list[dict[str, str]] = []
    loaded = load_model(tmp_path, openers={"audio_encoder": lambda **given: opened.append(given) or encoder})
    assert opened == [asked]
    assert loaded.audio_encoder is encoder
    with pytest.raises(LabError, match=r"keeps its audio_encoder by name .*; give its opener"):
        load_model(tmp_path)
    other = AudioEncoder(
        whisper=WhisperEncoder(encoder.whisper.config), feature_extractor=WhisperFeatureExtractor(), window="cropped"
    )
    with pytest.raises(
        LabError, match=r"the audio_encoder of the saved model .* has .* now, so the model would not be"
    ):
        load_model(tmp_path, openers={"audio_encoder": lambda **given: other})


def test_a_folder_that_is_no_model_of_this_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"cannot load the model.json of .*; expected a folder that `save_model` wrote"):
        load_model(tmp_path)
    save_model(build(), tmp_path)
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    (tmp_path / DESCRIPTION).write_text(json.dumps({**described, "format_version": 99}))
    with pytest.raises(LabError, match="has format version 99, and this version of the lab reads 2; save it anew"):
        load_model(tmp_path)
    (tmp_path / DESCRIPTION).write_text(json.dumps(described))
    file = tmp_path / f"video_projector{WEIGHTS}"
    tensors = load_file(file)
    save_file({n: t for n, t in tensors.items() if not n.startswith("marks")}, file)
    with pytest.raises(LabError, match=r"the weights of the video_projector .* do not fit it, first marks\.weight"):
        load_model(tmp_path)
    save_file({**tensors, "marks.weight": torch.zeros(1)}, file)
    with pytest.raises(LabError, match=r"cannot load the weights of the video_projector .*size mismatch for marks\.w"):
        load_model(tmp_path)
    file.unlink()
    with pytest.raises(LabError, match=r"cannot load the weights of the video_projector in the saved model"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("audio_projector", "an example holds sounds, for which this model lacks its audio_projector; its parts are:"),
        ("video_projector", "an example holds videos, for which this model lacks its video_projector"),
        ("vision_encoder", "an example holds pixels, for which this model lacks its vision_encoder"),
    ],
)
def test_a_part_that_the_model_lacks_is_named(sample: Sample, lacking: str, message: str) -> None:
    model = build()
    example = example_of(sample, model, **LOOKING)
    setattr(model, lacking, None)
    with pytest.raises(LabError, match=message):
        model([example])
    text = Example(content=[[1, 2]], answer=[3])
    assert model([text]).loss.isfinite().all()


def test_a_sound_longer_than_a_window_is_heard_window_by_window(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", tone(31.0), 16000)
    model = build()
    example = example_of(Sample(id="long", content=(Audio(tmp_path / "long.wav"),)), model)
    assert model.segment_tokens(example.content[0]) == 31 * 50 // 4 + 1
    assert model([example]).loss.isfinite().all()


def test_media_that_cannot_be_read_are_named_with_their_sample_and_source(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = Sample(id="s7", source="a corpus", content=(Image(tmp_path / "broken.png"),))
    with pytest.raises(LabError, match=r"sample 's7' of 'a corpus': .*broken\.png is not an image that can be read"):
        example_of(broken, build())


def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lab", "ask", *arguments])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    return int(exited.value.code or 0)


def test_a_saved_model_is_asked_from_the_command_line_in_the_order_of_the_options(
    tmp_path: Path,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sample: Sample,
) -> None:
    model = build()
    save_model(model, tmp_path / "model")
    options = ["--max-tiles", "2", "--max-frames", "3", "--max-new-tokens", "9", "--device", "cpu"]
    words = ["--image", str(files["wide"]), "--text", "what do you hear", "--audio", str(files["a"])]
    words += ["--video", str(files["c"]), "--text", "and see", "--image", str(files["square"])]
    assert asked(monkeypatch, str(tmp_path / "model"), *words, *options) == 0
    assert capsys.readouterr().out.rstrip("\n") == ask(model, sample, **LOOKING, max_new_tokens=9)
    assert asked(monkeypatch, str(tmp_path / "model"), "--audio", "none.wav", *options) == 2
    assert "error: sample 'asked': none.wav is not there" in capsys.readouterr().err
    assert asked(monkeypatch, str(tmp_path / "model")) == 2
    assert "error: nothing is asked; give --audio" in capsys.readouterr().err
    assert asked(monkeypatch, str(tmp_path / "nowhere"), "--text", "a") == 2
    assert "error: there is no folder" in capsys.readouterr().err
