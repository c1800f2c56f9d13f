"""The parameters of a cell, typed: one class a kind of study, one line a parameter, with its unit behind it.

From these lines follow the `base` of an ablation, the checks of what its rows and rungs change, and the parameters cell
of a notebook (`python -m lab.study.parameters` writes it). Nothing heavy is imported for them: whether a name stands in
a dict of components is checked when a study is prepared (`lab.study.preparation`), before anything is made.

A new option of a projector needs no line here: a row gives it by `projector_options`.
"""

from dataclasses import dataclass, field, fields
from inspect import get_annotations
from typing import Any, Literal, Self, get_args, get_origin

from lab.errors import LabError, choose

Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What the parameters of every kind of study can do; `dataclasses.replace` makes others of them.

    Raises:
        LabError: a name that the kind of study does not have, or a value of another type or choice.
    """

    seed: int = 0  # of initialisation, of the order of batches, and of what else is drawn

    def __new__(cls, **values: Any) -> Self:
        """Refuse an unknown name in the words of this project, before the dataclass does in Python's."""
        for name in values:
            choose(dict.fromkeys(cls.names()), name, f"parameter of {cls.__name__}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for entry in fields(self):
            _check(entry.name, getattr(self, entry.name), entry.type)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every parameter: first those of the kind of study, then what it shares with others, the seed last."""
        return tuple(dict.fromkeys(name for one in cls.__mro__ for name in get_annotations(one)))

    def as_dict(self) -> dict[str, Any]:
        """Name and value of every parameter, as a notebook takes them."""
        return {name: getattr(self, name) for name in self.names()}


def _check(name: str, value: Any, kind: Any) -> None:
    if get_origin(kind) is Literal:
        choose(dict.fromkeys(get_args(kind)), value, name)
        return
    expected = get_origin(kind) or kind
    fits = isinstance(value, (int, float) if expected is float else expected)
    if not fits or (isinstance(value, bool) and expected is not bool):  # Python's bool is an int
        raise LabError(f"{name} is {value!r} ({type(value).__name__}); expected {expected.__name__}")


@dataclass(frozen=True, kw_only=True)
class TrainedParameters(Parameters):
    """What every kind of study has: a language model, its training, and the machine."""

    language_model: str = "character"  # name in LANGUAGE_MODELS or OWN_LANGUAGE_MODELS, hub name or folder
    pretraining_steps: int = 5500  # steps of the pretraining of a language model of the project's own
    steps: int = 600  # training steps
    learning_rate: float = 1e-3  # peak, of AdamW
    warmup_steps: int = 30  # steps in which the learning rate rises, then a cosine
    weight_decay: float = 0.01  # of AdamW
    checkpoint_every: int = 200  # steps; 0: none
    measure_dev: bool = False  # measure the development split too: for choosing settings
    precision: Precision = "auto"  # float32, bfloat16, or auto: bfloat16 where it is fast
    device: Device = "auto"  # cpu, cuda, or auto: cuda where there is one


@dataclass(frozen=True, kw_only=True)
class SpeechParameters(TrainedParameters):
    """A study of the audio branch: one audio projector at one rate, transcribing speech."""

    corpus: str = "default"  # name of a corpus, hub:NAME, or default: recorded speech where there is some, else espeak
    num_utterances: int = 0  # utterances of a corpus that is spoken on demand; 0: its own default
    out_of_domain_corpus: str = "asterisk"  # measured, never trained on; empty: none
    max_training_utterances: int = 0  # utterances; 0: all
    max_test_utterances: int = 400  # utterances of dev and of test, drawn by hash; 0: all
    max_out_of_domain_utterances: int = 150  # drawn by hash; 0: all
    audio_encoder: str = "whisper_tiny_en"  # packaged name, hub name or folder
    encoder_window: Literal["cropped", "padded"] = "cropped"  # cropped or padded (to 30 s)
    train_encoder: bool = False  # with the projector, as in the paper; else its features are computed once
    speeds: str = ""  # further speeds of the training speech, as in "0.9,1.1"
    projector: str = "conv_gmlp"  # name in AUDIO_PROJECTORS
    downsample_rate: int = 2  # the paper's n: encoder frames a token
    parameter_budget: int = 0  # parameters of a projector that is sized by a budget; 0: it is not
    projector_options: dict[str, Any] = field(default_factory=dict, hash=False)  # of its class, beside those above
    prompt: str = ""  # text before the audio
    positions: Literal["auto", "sequential", "time_aligned"] = "auto"  # auto: as the language model was pretrained
    steps: int = 340  # training steps
    batch_size: int = 8  # utterances a step
    pack_tokens: int = 0  # tokens of a pack, which then is a step instead of a padded batch; 0: no packs
    max_tokens: int = 4096  # longest sequence, in language-model tokens
    num_time_masks: int = 1  # masks in two seconds of audio; 0: none
    time_mask_frames: int = 12  # longest mask, in encoder frames of 20 ms
    feature_noise: float = 0.0  # standard deviation, in those of a channel
    shift_windows: bool = True  # start the first window up to n - 1 frames early in training
    num_beams: int = 3  # 1: greedy
    normalizer: str = "whisper_english"  # name in NORMALIZERS


@dataclass(frozen=True, kw_only=True)
class SightedParameters(TrainedParameters):
    """What the kinds of studies share that see: pictures, vision encoder, visual projector."""

    images: str = "stills"  # source of image-text: name in SAMPLE_SOURCES with options, or FORM@hub:OWNER/NAME
    test_source: str = ""  # whose test split is asked about; empty: that of what is trained on
    num_test: int = 960  # questions of dev and of test
    vision_encoder: str = "efficientnet_lite0"  # packaged name, timm:NAME, hub name or folder
    image_size: int = 96  # pixels a side of what the encoder sees; 0: its own
    stride: int = 16  # pixels between features of a CNN; 0: its own
    frame_size: int = 96  # pixels a side of a rendered frame or still
    projector: str = "mean_pool"  # name in VISUAL_PROJECTORS
    pool_size: int = 2  # patches a side that become one token
    padding: Literal["none", "both", "columns"] = "none"  # rows and columns that fill no window: dropped, or repeated
    projector_options: dict[str, Any] = field(default_factory=dict, hash=False)  # of its class, beside those above
    marks_places: bool = True  # tell the language model where and when a token is
    train_language_model: bool = True  # with the projector
    language_model_learning_rate: float = 5e-4  # peak of each stage


@dataclass(frozen=True, kw_only=True)
class VisionParameters(SightedParameters):
    """A study of pictures and video: projectors, encoders, tiles, frames, curricula."""

    curriculum: str = "staged"  # name in CURRICULA: direct, staged, mixed, image_then_video, image
    num_images: int = 2400  # images to train on
    videos: str = "scenes:8-12:2-4"  # source of video-text (lengths and events in seconds); empty: a study of images
    num_videos: int = 1800  # videos to train on
    num_test: int = 540  # questions of dev and of test
    train_encoder: bool = False  # with the rest; else its features are computed once
    frame_size: int = 96  # pixels a side of a rendered frame or still
    frames_per_second: float = 1.0  # of a video
    max_frames: int = 8  # of a video; 1: the one in the middle, 0: nothing is seen
    max_tiles: int = 1  # AnyRes: tiles of an image at most; 1: a fixed resolution
    fit: Literal["pad", "stretch"] = "pad"  # how an image meets a canvas of another aspect: pad or stretch
    unpad: bool = False  # leave out tokens of the tiles' padding
    newline: bool = False  # a learned token after each row of the tiles
    video_projector_start: Literal["afresh", "image_projector"] = "afresh"  # image_projector: after image_branch_steps
    image_branch_steps: int = 0  # steps before the curriculum, in which the image projector is trained
    steps: int = 600  # training steps of all stages of the curriculum together
    first_share: float = 0.4  # share of the steps that a first stage has
    image_share: float = 0.4  # share of image-text, in tokens, where both are mixed
    batch_tokens: int = 2400  # language-model tokens a step, about
    batch_size: int = 0  # examples a step; 0: as many as batch_tokens gives
    packed: bool = False  # a step is one pack of batch_tokens instead of a padded batch
    encoder_learning_rate: float = 1e-3  # peak of each stage


@dataclass(frozen=True, kw_only=True)
class OmniParameters(TrainedParameters):
    """A study of the whole model: stages one after the other, each from the last one's weights, on mixtures of data."""

    stages: dict[str, Any] = field(default_factory=dict, hash=False)  # of PAPER_STAGES, each its share, data, frozen
    learning_rates: dict[str, Any] = field(default_factory=dict, hash=False)  # by stage and part; else the paper's
    data: dict[str, Any] = field(default_factory=dict, hash=False)  # source of each kind of data that stages mix
    tests: dict[str, Any] = field(default_factory=dict, hash=False)  # source of each test, by its name
    hears: dict[str, Any] = field(default_factory=dict, hash=False)  # what differs from SpeechParameters
    sees: dict[str, Any] = field(default_factory=dict, hash=False)  # what differs from VisionParameters
    num_samples: int = 2000  # of each kind of data at most
    num_test: int = 300  # items of each test at most
    num_between: int = 60  # items of each test at most that are asked after every stage; 0: none
    positions: Literal["auto", "sequential", "time_aligned"] = "auto"  # auto: as the language model was pretrained
    steps: int = 2000  # training steps of a run with all stages
    batch_tokens: int = 1200  # language-model tokens a step, about
    packed: bool = False  # a step is one pack of batch_tokens instead of a padded batch

    @property
    def hearing(self) -> SpeechParameters:
        """As of a study of speech, what it does not share with this one."""
        return SpeechParameters(language_model=self.language_model, **self.hears)

    @property
    def seeing(self) -> VisionParameters:
        """As of a study of pictures and video."""
        return VisionParameters(language_model=self.language_model, **self.sees)


@dataclass(frozen=True, kw_only=True)
class TuningParameters(TrainedParameters):
    """What the studies of loss filters share: planted faults, the filter, and fine-tuning in packs."""

    num_training: int = 2400  # samples to choose from, faulty ones among them
    num_test: int = 300  # held-out samples of dev and of test
    max_tokens: int = 160  # of a whole sample; longer ones are left out
    fault_share: float = 0.3  # of the training samples that are made faulty
    fault_seed: int = 0  # of which ones, and how; the same for all cells
    loss_filter: str = "none"  # name in LOSS_FILTERS, random, or oracle
    k: float = 1.0  # standard deviations from the mean that are kept
    fitted_by: Literal["corpus", "source"] = "corpus"  # fitted to all samples, or to each source by itself
    steps: int = 600  # steps of fine-tuning, each one pack
    budget_tokens: int = 400  # tokens of a pack


@dataclass(frozen=True, kw_only=True)
class TextTuningParameters(TuningParameters):
    """A study of fine-tuning on instructions of text alone."""

    instructions: str = "bigbench:plurals,past,questions,negations,wikidata+chatterbot"  # trained on, joined by +
    test_instructions: str = "bigbench:plurals,past,questions,negations,wikidata"  # dev and test are of these
    scorer: str = "smollm2_135m"  # whose losses are filtered: name in LANGUAGE_MODELS, hub name or folder
    num_choices: int = 4  # answers among which the right one is to be chosen
    learning_rate: float = 2e-3  # peak, of AdamW


@dataclass(frozen=True, kw_only=True)
class PictureTuningParameters(SightedParameters, TuningParameters):
    """A study of fine-tuning on questions about pictures, from a model that is trained on others first."""

    num_pretraining: int = 1920  # first pictures of the training side, with clean questions: the pretrained model's
    num_training: int = 2080  # pictures behind them to choose from, faulty questions among them
    max_tokens: int = 100  # of picture, question and answer; longer ones are left out
    scorer_steps: int = 300  # steps of the pretrained model's training on pictures, each one pack
    scorer_seed: int = 0  # of its initialisation and order of packs; the same for all cells
    steps: int = 100  # steps of fine-tuning, each one pack
    budget_tokens: int = 800  # tokens of a pack
    warmup_steps: int = 10  # steps of fine-tuning in which the learning rate rises
    checkpoint_every: int = 0  # steps; 0: none
