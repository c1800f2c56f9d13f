"""What a cell is made of, from its typed parameters: what it hears or sees, its model, its stages and its batches.

Sections 2 and 3 of the paper. Whatever a frozen encoder makes of a corpus or source is kept, so that a cell opens it
instead of computing it. The image branch passes its pictures through the visual projector; the video branch passes
video, and the images that it is trained on first or beside, through the video projector.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lab.data.features import FeatureStore
from lab.data.filters.filtering import LeftOut, left_out_account
from lab.data.instructions.instructions import with_choices
from lab.data.normalizers import NORMALIZERS
from lab.data.sample import TRANSCRIBE, Audio, Image, Sample, Text, Video, samples_sha256
from lab.data.sources import HUB, SAMPLES_VERSION, open_samples, sources_sha256
from lab.data.speech.corpora import Corpus, load_corpus
from lab.data.splits import Split
from lab.data.video import Sight
from lab.errors import LabError, choose
from lab.parts.audio_encoders import AudioEncoder
from lab.parts.audio_projectors import AudioProjector, build_audio_projector
from lab.parts.language_models import LanguageModel
from lab.parts.media_tokens import AudioTokens, Branch, VisualTokens
from lab.parts.omni_model import OmniModel
from lab.parts.vision_encoders import VisionEncoder
from lab.parts.visual_projectors import VisualProjector, build_visual_projector
from lab.training.batches import BatchOptions
from lab.training.named_parts import transcript_writer
from lab.training.parameters import (
    OmniParameters,
    PictureTuningParameters,
    SightedParameters,
    SpeechParameters,
    TextTuningParameters,
    TrainedParameters,
    VisionParameters,
)
from lab.training.samples import NOT_READABLE, Augmentation, SampleExamples, Tiling
from lab.training.stages import PAPER_STAGES, PARTS, Stage

IMAGE, VIDEO, AUDIO, INSTRUCTIONS = "image_text", "video_text", "asr_audio_text", "instructions"
"""Kinds of data that stages mix; under these names a cell's data hold what is trained on."""
# Shorter utterances hold no window of the largest rate that a study compares.
MIN_FRAMES = 16
# Of the training data, from which channels are standardised.
_STATISTICS_FRAMES, _STATISTICS_VIEWS = 200_000, 2000

IMAGE_BRANCH = "image_branch"
PRETRAINING, FINE_TUNING = "image_text_pretraining", "image_text_fine_tuning"
CURRICULA: dict[str, tuple[tuple[str, ...], ...]] = {
    # Video-text from the start: the paper's "without video pretraining".
    "direct": ((VIDEO,),),
    # The paper's.
    "staged": ((IMAGE,), (IMAGE, VIDEO)),
    # Controls that the paper lacks: the images without the order, and the order without images behind it.
    "mixed": ((IMAGE, VIDEO),),
    "image_then_video": ((IMAGE,), (VIDEO,)),
    # For studies of images.
    "image": ((IMAGE,),),
}
"""Which data the stages of a study of pictures and video see, one after the other (Table 10 of the paper).

All have the same number of steps, and a step has the same number of language-model tokens whatever its data, so they
cost the same; an image gives fewer decoded frames a token than a video, which is counted and reported.
"""


def open_split(
    corpus: Corpus,
    split: Split,
    encoder: AudioEncoder,
    *,
    write: Callable[[str], str] = str.strip,
    keep: Callable[[str], str] = str.strip,
    limit: int = 0,
    features: bool = True,
    prompt: str = "",
    **options: Any,
) -> SampleExamples:
    """One split of a corpus with its encoder features, computed where they are not there yet.

    `write` gives a transcript as the language model writes it. Left out: utterances shorter than `MIN_FRAMES` encoder
    frames, and texts of which `write` or `keep` leaves nothing (a normaliser that drops fillers empties "Hmm.").
    `limit` draws so many of the rest, always the same (0: all). Without `features`, an encoder that is being trained
    computes them. `prompt` stands before every sound; `options` are of `SampleExamples.heard_by`.

    Raises:
        LabError: nothing is left.
    """
    # As the corpus has it first: a normaliser drops "(2 seconds of silence)" by its brackets, which nobody writes.
    chosen = [one for one in corpus.split(split) if keep(one.answer)]
    # The right answer is what the language model can write of it: a perfect transcript has no error.
    chosen = [replace(one, answer=write(one.answer)) for one in chosen]
    chosen = [one for one in chosen if one.answer and keep(one.answer)]
    chosen = [one for one in chosen if encoder.num_frames(one.sound.num_samples) >= MIN_FRAMES]
    if limit:
        # By hash, because corpora are in the order of their recording: the first would not stand for the rest.
        drawn = sorted(chosen, key=lambda one: hashlib.sha256(one.id.encode()).hexdigest())[:limit]
        taken = {one.id for one in drawn}
        chosen = [one for one in chosen if one.id in taken]
    if not chosen:
        raise LabError(f"corpus {corpus.name!r} has no usable utterance in its {split} split")
    if prompt:
        chosen = [replace(one, content=(Text(prompt), *one.content)) for one in chosen]
    found = SampleExamples(samples=chosen, name=corpus.name, split=split, write=write)
    return found.heard_by(encoder, key=corpus.sha256, **options) if features else found


def heard_data(
    parameters: SpeechParameters, encoder: AudioEncoder, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, SampleExamples]:
    """The splits of a cell that hears: what it trains on (`AUDIO`), `dev`, `test`, and `out_of_domain` if it names one.

    Which utterances are taken does not depend on the row. An utterance must leave something after the normaliser.
    """
    open_one = partial(
        open_split,
        encoder=encoder,
        write=transcript_writer(parameters.language_model),
        keep=NORMALIZERS[parameters.normalizer],
        features=not parameters.train_encoder,
        prompt=parameters.prompt,
        progress=progress,
    )
    corpus = load_corpus(parameters.corpus, num_utterances=parameters.num_utterances)
    speeds = (1.0, *(float(speed) for speed in parameters.speeds.split(",") if speed))
    utterances = open_one(corpus, "train", limit=parameters.max_training_utterances, speeds=speeds)
    augmentation = Augmentation(
        parameters.num_time_masks, parameters.time_mask_frames, parameters.feature_noise, parameters.shift_windows
    )
    data = {
        AUDIO: replace(utterances, augmentation=augmentation),
        "dev": open_one(corpus, "dev", limit=parameters.max_test_utterances),
        "test": open_one(corpus, "test", limit=parameters.max_test_utterances),
    }
    if parameters.out_of_domain_corpus:
        other = load_corpus(parameters.out_of_domain_corpus)
        data["out_of_domain"] = open_one(other, "test", limit=parameters.max_out_of_domain_utterances)
    return data


def open_seen_split(
    parameters: VisionParameters,
    encoder: VisionEncoder,
    source: str,
    split: Split,
    count: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> SampleExamples:
    """The first samples of one side of a source, seen as a cell sees them."""
    examples = _seen(parameters, source, *open_samples(source, split, count))
    features = not parameters.train_encoder
    return examples.kept_by(encoder, key=_state(source, examples), features=features, progress=progress)


def _seen(parameters: VisionParameters, source: str, samples: list[Sample], left_out: LeftOut) -> SampleExamples:
    """Samples as a cell that sees shows them."""
    return SampleExamples(
        samples=samples,
        name=source.partition(":")[0].replace("/", "_"),
        sight=Sight(
            frame_size=parameters.frame_size,
            frames_per_second=parameters.frames_per_second,
            max_frames=parameters.max_frames,
        ),
        tiling=Tiling(max_tiles=parameters.max_tiles, fit=parameters.fit, unpad=parameters.unpad),
        branch=cell_branch(parameters),
        left_out=left_out,
    )


def _state(source: str, examples: SampleExamples) -> str:
    """All that what is kept of a source's samples depends on, but their ids."""
    # Files that rows name may lie outside of a data set's own folder.
    files = samples_sha256(examples.samples) if HUB in source else ""
    return f"{SAMPLES_VERSION} {source} {examples.sight} {sources_sha256(source)}{files}"


def cell_kinds(parameters: VisionParameters) -> set[str]:
    """The kinds of data that a cell trains on, those of its stages."""
    legs = choose(CURRICULA, parameters.curriculum, "curriculum")
    return {kind for kinds in legs for kind in kinds} | ({IMAGE} if parameters.image_branch_steps else set())


def seen_data(
    parameters: VisionParameters, encoder: VisionEncoder, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, SampleExamples]:
    """The splits of a cell that sees: `IMAGE` and `VIDEO` as its curriculum needs them, `test`, and `dev` if measured.

    `dev` and `test` are of the videos where the cell has some, else of the images; `test_source` names another source
    whose test split is taken.

    Raises:
        LabError: an unknown source or curriculum, or a curriculum whose data the cell does not have.
    """
    kinds = cell_kinds(parameters)
    sources = {IMAGE: parameters.images, VIDEO: parameters.videos}
    counts = {IMAGE: parameters.num_images, VIDEO: parameters.num_videos}
    for kind in sorted(kinds):
        if not sources[kind]:
            raise LabError(f"curriculum {parameters.curriculum!r} needs {kind}, but this cell names no such source")
    opened = partial(open_seen_split, parameters, encoder, progress=progress)
    data = {kind: opened(sources[kind], "train", counts[kind]) for kind in sorted(kinds)}
    asked = parameters.videos or parameters.images
    data["test"] = opened(parameters.test_source or asked, "test", parameters.num_test)
    if parameters.measure_dev:
        data["dev"] = opened(asked, "dev", parameters.num_test)
    return data


def image_branch_data(data: Mapping[str, SampleExamples]) -> dict[str, dict[str, SampleExamples]]:
    """What the image branch sees otherwise: its pictures pass through the visual projector."""
    return {IMAGE_BRANCH: {IMAGE: replace(data[IMAGE], branch="visual_projector")}} if IMAGE in data else {}


def cell_audio_projector(parameters: SpeechParameters, hidden_size: int, output_size: int) -> AudioProjector:
    """A projector of a cell, afresh."""
    budget: dict[str, Any] = {"parameter_budget": parameters.parameter_budget} if parameters.parameter_budget else {}
    return build_audio_projector(
        parameters.projector,
        hidden_size=hidden_size,
        output_size=output_size,
        downsample_rate=parameters.downsample_rate,
        **budget,
        **parameters.projector_options,
    )


def cell_visual_projector(parameters: SightedParameters, hidden_size: int, output_size: int) -> VisualProjector:
    """A projector of a cell, afresh; one that keeps every patch pools none."""
    pooled = {"pool_size": parameters.pool_size, "padding": parameters.padding}
    options = {**(pooled if parameters.projector != "mlp" else {}), **parameters.projector_options}
    return build_visual_projector(parameters.projector, hidden_size=hidden_size, output_size=output_size, **options)


def hearing_model(
    parameters: SpeechParameters,
    encoder: AudioEncoder,
    language_model: LanguageModel,
    data: Mapping[str, SampleExamples],
) -> OmniModel:
    """The model of a cell that hears, its projector afresh; seed torch before.

    Features are standardised by those of the training data; a trained encoder's, or without data, are left as they are.
    """
    kept = data[AUDIO].heard[0] if data and not parameters.train_encoder else None
    statistics = _statistics(kept, max_rows=_STATISTICS_FRAMES)
    projector = cell_audio_projector(parameters, encoder.hidden_size, language_model.hidden_size)
    return OmniModel(
        language_model=language_model,
        audio_projector=AudioTokens(projector=projector, **statistics),
        audio_encoder=encoder if parameters.train_encoder else None,
        positions=parameters.positions,
    )


def seeing_model(
    parameters: VisionParameters,
    encoder: VisionEncoder,
    language_model: LanguageModel,
    data: Mapping[str, SampleExamples],
) -> OmniModel:
    """The model of a cell that sees, its projectors afresh; else as `hearing_model`."""
    stores = [split.store for kind, split in data.items() if kind in (IMAGE, VIDEO) and split.store is not None]
    kept = stores[-1] if data and parameters.max_frames and not parameters.train_encoder else None
    statistics = _statistics(kept, max_rows=_STATISTICS_VIEWS, spread=True)

    def tokens() -> VisualTokens:
        made = VisualTokens(
            projector=cell_visual_projector(parameters, encoder.hidden_size, language_model.hidden_size),
            marks_places=parameters.marks_places,
            newline=parameters.newline,
            **statistics,
        )
        if made.marks is not None and language_model.place_marks is not None:
            # What the language model was told of place and time in its pretraining, as it was told it.
            made.marks.load_state_dict({"weight": language_model.place_marks})
        return made

    return OmniModel(
        visual_projector=tokens(),
        video_projector=tokens(),
        language_model=language_model,
        vision_encoder=encoder if parameters.train_encoder else None,
        positions="sequential",
    )


def _statistics(kept: FeatureStore | None, **rows: Any) -> dict[str, Tensor]:
    """By what features are standardised: those that are kept of the training data."""
    found = kept.mean_and_std(**rows) if kept else ()
    return {name: torch.from_numpy(one) for name, one in zip(("feature_mean", "feature_std"), found, strict=False)}


ENCODERS = ("audio_encoder", "vision_encoder")
_CHANGES = ("data", "schedule", "starts_as")
# First samples of a kind of data by which features of an encoder that trains are standardised, as it begins.
_STATISTICS_SAMPLES = 256
_TEXT_CHOICES = 4


@dataclass(frozen=True, kw_only=True)
class OmniData:
    """What a cell of the whole model trains on and is asked.

    `own` has what each stage sees of the `kinds`: before an encoder trains, features that are kept. `kept` are those by
    which channels are standardised, by the encoder.
    """

    kinds: Mapping[str, SampleExamples]
    own: Mapping[str, Mapping[str, SampleExamples]]
    tests: Mapping[str, SampleExamples]
    kept: Mapping[str, SampleExamples]


def open_source(
    parameters: OmniParameters, encoders: Mapping[str, Any], source: str, split: Split, count: int, **options: Any
) -> SampleExamples:
    """The first samples of one side of any source, pictures and frames as pixels that are kept.

    What is said is written as the language model writes it; what it cannot write at all is left out.

    Raises:
        LabError: as `open_samples`, or the language model can write none of the samples.
    """
    every, left_out = open_samples(source, split, count)
    write = transcript_writer(parameters.language_model)
    samples = []
    for one in every:
        said = [one.answer, *one.choices, *(part.text for part in one.content if isinstance(part, Text) and part.text)]
        if not all(map(write, said)):
            left_out.add(NOT_READABLE, one.id)
        else:
            samples.append(replace(one, answer=write(one.answer)) if one.task == TRANSCRIBE else one)
    if not samples:
        raise LabError(f"{source!r} has no {split} sample that can be used; {left_out_account(left_out)}")
    found = replace(_seen(parameters.seeing, source, samples, left_out), branch=None, split=split)
    if not found.holds(Image, Video):
        return found
    return found.kept_by(encoders["vision_encoder"], key=_state(source, found), features=False, **options)


def kind_source(parameters: OmniParameters, kind: str) -> str:
    """The source of a kind of data that a stage mixes: one of `data`, or behind what changes it, as in `kept:loss:vqa`.

    Raises:
        LabError: `data` has no such kind.
    """
    changed, colon, name = kind.rpartition(":")
    return f"{changed}{colon}{choose(parameters.data, name, 'kind of data, of those in `data`:')}"


def _with_features(found: SampleExamples, encoders: Mapping[str, Any], **options: Any) -> SampleExamples:
    """The same samples with the features of frozen encoders."""
    if found.holds(Audio):
        found = found.heard_by(encoders["audio_encoder"], key=_state(found.samples[0].source, found), **options)
    if found.holds(Image, Video):
        key = _state(found.samples[0].source, found)
        found = found.kept_by(encoders["vision_encoder"], key=key, **options)
    return found


def omni_data(
    parameters: OmniParameters,
    encoders: Mapping[str, Any],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> OmniData:
    """Everything that the stages of a cell mix, and its tests; questions about text alone get choices.

    Raises:
        LabError: a kind of data that the cell does not name, or as `open_source` and `cell_stages`.
    """
    opened = partial(open_source, parameters, encoders, progress=progress)
    stages = cell_stages(parameters)
    used = {kind: kind_source(parameters, kind) for stage in stages for kind in stage.data}
    kinds = {kind: opened(source, "train", parameters.num_samples) for kind, source in used.items()}
    own: dict[str, dict[str, SampleExamples]] = {}
    trained: set[str] = set()
    for stage in stages:
        trained |= set(stage.trained) & set(ENCODERS)
        given = {kind: kinds[kind] for kind in stage.data}
        if not trained:
            given = {kind: _with_features(one, encoders, progress=progress) for kind, one in given.items()}
        if "video_projector" in stage.trained and "visual_projector" not in stage.trained:
            # As in the paper's video branch: its images pass through the projector that it trains.
            given = {kind: replace(one, branch="video_projector") for kind, one in given.items()}
        own[stage.name] = given
    tests = {name: opened(source, "test", parameters.num_test) for name, source in parameters.tests.items()}
    write = transcript_writer(parameters.language_model)
    for name, test in tests.items():
        if not test.holds(Audio, Image, Video) and not all(one.choices for one in test.samples):
            of_tasks = [replace(one, source=one.task) for one in test.samples]
            tests[name] = replace(test, samples=with_choices(of_tasks, write, num_choices=_TEXT_CHOICES))
    kept = {}
    for encoder, media in zip(ENCODERS, ((Audio,), (Image, Video)), strict=True):
        if first := next((one for one in kinds.values() if one.holds(*media)), None):
            few = replace(first, samples=first.samples[:_STATISTICS_SAMPLES])
            kept[encoder] = _with_features(few, encoders, progress=progress)
    return OmniData(kinds=kinds, own=own, tests=tests, kept=kept)


def omni_model(
    parameters: OmniParameters, encoders: Mapping[str, Any], language_model: LanguageModel, data: OmniData
) -> OmniModel:
    """The whole model, its projectors afresh and its encoders inside; else as `hearing_model`."""
    kept = data.kept
    heard = {AUDIO: kept["audio_encoder"]} if "audio_encoder" in kept else {}
    seen = {IMAGE: kept["vision_encoder"]} if "vision_encoder" in kept else {}
    hearing = hearing_model(parameters.hearing, encoders["audio_encoder"], language_model, heard)
    seeing = seeing_model(parameters.seeing, encoders["vision_encoder"], language_model, seen)
    return OmniModel(
        language_model=language_model,
        audio_projector=hearing.audio_projector,
        visual_projector=seeing.visual_projector,
        video_projector=seeing.video_projector,
        **encoders,
        positions=parameters.positions,
    )


def _omni_stages(parameters: OmniParameters) -> tuple[Stage, ...]:
    """The paper's stages with what the cell says of them, each from those before it.

    A cell gives a stage its `share` of the steps, and may give its `data`, its `schedule`, what it `starts_as`, and
    further `frozen` parts. Learning rates are the cell's, else the paper's.
    """
    stages: list[Stage] = []
    for name, told in parameters.stages.items():
        paper = choose(PAPER_STAGES, name, "stage")
        for one in told:
            choose(dict.fromkeys(("share", "frozen", *_CHANGES)), one, f"what is told of stage {name!r}:")
        if not 0 < (share := told.get("share", 0)) <= 1:
            raise LabError(f"share of stage {name!r} is {share}; expected a share of the steps, above 0 and at most 1")
        rates = {**paper.learning_rates, **parameters.learning_rates.get(name, {})}
        rates = {part: rate for part, rate in rates.items() if part not in told.get("frozen", ())}
        before = [one.name for one in stages]
        parents = (*(one for one in paper.starts_from or () if one in before), *before[-1:])
        changes = {one: told[one] for one in _CHANGES if one in told}
        stages.append(
            replace(
                paper,
                learning_rates=rates,
                frozen=tuple(part for part in PARTS if part not in rates),
                steps=max(1, round(share * parameters.steps)),
                starts_from=tuple(dict.fromkeys(parents)),
                **{"schedule": paper.schedule or "cosine", **changes},
            )
        )
        for part in rates:
            stages[-1].peak(part)
    for name in parameters.learning_rates:
        choose(PAPER_STAGES, name, "stage of a learning rate:")
    if not stages:
        raise LabError(f"a cell of the whole model has no stage; give at least one of: {', '.join(PAPER_STAGES)}")
    return tuple(stages)


def cell_branch(parameters: VisionParameters) -> Branch:
    """The projector that a cell studies: the video branch's where it has video."""
    return "video_projector" if parameters.videos else "visual_projector"


def cell_batches(parameters: TrainedParameters) -> BatchOptions:
    """What a batch of a cell holds."""
    if isinstance(parameters, OmniParameters):
        return BatchOptions(tokens=parameters.batch_tokens, packed=parameters.packed)
    if isinstance(parameters, SpeechParameters):
        if parameters.pack_tokens:
            return BatchOptions(tokens=parameters.pack_tokens, packed=True)
        return BatchOptions(tokens=parameters.max_tokens, size=parameters.batch_size)
    if isinstance(parameters, VisionParameters):
        return BatchOptions(tokens=parameters.batch_tokens, size=parameters.batch_size, packed=parameters.packed)
    assert isinstance(parameters, TextTuningParameters | PictureTuningParameters)
    return BatchOptions(tokens=parameters.budget_tokens, packed=True)


def cell_stages(parameters: TrainedParameters) -> tuple[Stage, ...]:
    """The stages of a cell, one after the other; of fine-tuning on pictures, first that of its pretrained model.

    Raises:
        LabError: as `Stage`; of a curriculum, an unknown one, a share outside 0 to 1, too few steps for its stages, or
            a start of the video projector that the cell has not the steps for.
    """
    if isinstance(parameters, OmniParameters):
        return _omni_stages(parameters)
    if isinstance(parameters, SpeechParameters):
        rates = {"audio_projector": parameters.learning_rate}
        if parameters.train_encoder:
            rates["audio_encoder"] = parameters.learning_rate
        return (_stage("audio", rates, {AUDIO: 1.0}, parameters.steps, frozen=("language_model",)),)
    if isinstance(parameters, TextTuningParameters):
        rates = {"language_model": parameters.learning_rate}
        return (_stage("fine_tuning", rates, {INSTRUCTIONS: 1.0}, parameters.steps),)
    if isinstance(parameters, PictureTuningParameters):
        # Both train the same parts at the same peaks, so that what was pretrained is trained further as it is.
        first = _seeing_stage(PRETRAINING, parameters, "visual_projector", {IMAGE: 1.0}, parameters.scorer_steps)
        return first, replace(first, name=FINE_TUNING, steps=parameters.steps, starts_from=(PRETRAINING,))
    assert isinstance(parameters, VisionParameters)
    return _curriculum(parameters)


def _curriculum(parameters: VisionParameters) -> tuple[Stage, ...]:
    """An image branch where the video projector starts from it, then the stages of the curriculum, `steps` in all."""
    start, before = parameters.video_projector_start, parameters.image_branch_steps
    if (start == "image_projector") != (before > 0) or (before and not (parameters.videos and parameters.images)):
        raise LabError(
            f"video_projector_start is {start!r} and image_branch_steps {before}; expected a cell with images and "
            "videos and steps above 0 for 'image_projector', 0 steps for 'afresh'"
        )
    legs = choose(CURRICULA, parameters.curriculum, "curriculum")
    for what in ("first_share", "image_share"):
        if not 0 < (share := getattr(parameters, what)) < 1:
            raise LabError(f"{what} is {share}; expected a share above 0 and below 1")
    steps = parameters.steps
    if steps < len(legs):
        raise LabError(f"curriculum {parameters.curriculum!r} has {len(legs)} stages; {steps} steps are too few")
    first = min(max(round(parameters.first_share * steps), 1), steps - 1)
    stages: list[Stage] = []
    if before:
        stages.append(_seeing_stage(IMAGE_BRANCH, parameters, "visual_projector", {IMAGE: 1.0}, before))
    for number, kinds in enumerate(legs, 1):
        shares = {IMAGE: parameters.image_share, VIDEO: 1 - parameters.image_share}
        stage = _seeing_stage(
            f"{parameters.curriculum}_{number}",
            parameters,
            cell_branch(parameters),
            shares if len(kinds) > 1 else dict.fromkeys(kinds, 1.0),
            steps if len(legs) == 1 else first if number == 1 else steps - first,
        )
        copied = {"video_projector": "visual_projector"} if before and number == 1 else {}
        stages.append(replace(stage, starts_from=tuple(one.name for one in stages[-1:]), starts_as=copied))
    return tuple(stages)


def _seeing_stage(
    name: str, parameters: SightedParameters, branch: Branch, data: Mapping[str, float], steps: int
) -> Stage:
    rates: dict[str, float] = {branch: parameters.learning_rate}
    if parameters.train_language_model:
        rates["language_model"] = parameters.language_model_learning_rate
    if isinstance(parameters, VisionParameters) and parameters.train_encoder:
        rates["vision_encoder"] = parameters.encoder_learning_rate
    every = ("visual_projector", "video_projector", "language_model", "vision_encoder")
    return _stage(name, rates, data, steps, frozen=tuple(part for part in every if part not in rates))


def _stage(
    name: str, rates: Mapping[str, float], data: Mapping[str, float], steps: int, *, frozen: tuple[str, ...] = ()
) -> Stage:
    return Stage(
        name=name,
        paper="section 3; data, steps, shares and learning rates are this study's",
        frozen=frozen,
        learning_rates=rates,
        data=data,
        steps=steps,
        schedule="cosine",
    )
