"""What a cell of a fine-tuning study is made of: scored samples with planted faults, a filter, and the model to tune.

Section 3 of the paper. Of text alone or beside pictures: the studies differ in where samples come from, and in whose
losses are filtered. Faults are planted in question and answer of what is fine-tuned on, never in what is tested nor in
what a pretrained model has seen, and all cells filter the same losses of the same samples.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab.data.filters.filtering import Filtered
from lab.data.filters.loss_filters import (
    LOSS_FILTERS,
    RANDOM,
    SUMMARY,
    Losses,
    filter_losses,
    filter_losses_by_group,
    read_losses,
)
from lab.data.instructions.instructions import read_instructions, split_instructions, with_choices
from lab.data.instructions.planted_faults import plant_faults
from lab.data.sample import Sample, samples_sha256
from lab.data.sources import SAMPLES_VERSION, sources_sha256
from lab.data.splits import Split
from lab.errors import LabError, choose
from lab.parts.language_models import LanguageModel, as_chat_model
from lab.parts.omni_model import OmniModel
from lab.parts.vision_encoders import VisionEncoder
from lab.paths import cache_dir, make_folder, write_whole
from lab.training.cell import IMAGE, PRETRAINING, cell_batches, cell_stages, seeing_model, seen_data
from lab.training.checkpoints import read_tensors, write_tensors
from lab.training.loop import TrainingOptions, choose_device, choose_precision
from lab.training.named_parts import OWN_LANGUAGE_MODELS, open_language_model, open_vision_encoder, writer_of
from lab.training.parameters import PictureTuningParameters, TextTuningParameters, TuningParameters, VisionParameters
from lab.training.samples import SampleExamples
from lab.training.scoring import Scorer, ScoringOptions, score, text_scorer
from lab.training.stage_training import Ancestry, as_json, from_json, train_stages

ORACLE = "oracle"
# Of a pack in which instructions are scored; more where a sample may be longer.
SCORED_TOKENS = 1024
# Raise it when the same parameters would give another pretrained model.
MODEL_VERSION = 1
WEIGHTS, FACTS = "weights.safetensors", "facts.json"
WARMUP_SHARE = 0.1
# With the sources' and the encoder's hashes, what decides the pretrained weights. `num_training` does as features are
# standardised over all pictures of the training side.
_DECIDING = (
    *("images", "num_pretraining", "num_training", "max_tokens", "image_size", "stride", "frame_size"),
    *("projector", "pool_size", "padding", "marks_places", "train_language_model", "scorer_steps", "scorer_seed"),
    *("budget_tokens", "learning_rate", "language_model_learning_rate", "weight_decay"),
)

Say = Callable[[str], Callable[..., None]]
"""Given what is counted, what is to be told how much of it is done."""


def quiet(what: str) -> Callable[..., None]:
    """Nobody is told."""
    return lambda *done: None


@dataclass(frozen=True, kw_only=True)
class Start:
    """A model to fine-tune, on the cell's device, and the samples to choose from.

    `held_out` are `test`, and `dev` where it is measured: clean, with choices. `facts` say where all comes from and
    what was left out. `opened` are parts that nothing trains, as they were opened, by name; `folders` what was made for
    it and must still be there.
    """

    model: OmniModel
    train: SampleExamples
    held_out: Mapping[str, SampleExamples]
    facts: Mapping[str, Any]
    folders: tuple[Path, ...] = ()
    ancestry: Ancestry = ()
    opened: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Tuning(Start):
    """The same with planted faults and losses: what a filter chooses from.

    `faults` has the kind of planted fault of each of `train`, None for a clean one; `losses` are those of `train`, in
    its order, by the scorer of that hash.
    """

    faults: tuple[str | None, ...]
    losses: Losses
    scorer_sha256: str

    def kept(self, filtered: Filtered) -> SampleExamples:
        """What a filter leaves, to be trained on."""
        pairs = zip(self.train.samples, filtered.keep.tolist(), strict=True)
        return replace(self.train, samples=[sample for sample, stays in pairs if stays])


def check_tuning(parameters: TuningParameters) -> None:
    """Refuse numbers and filters that no study has.

    Raises:
        LabError: fewer samples than two to fine-tune on or one to pretrain on, a share of faults out of range, packs
            too small for a faulty sample, an unknown filter (the choices are listed), one that is fitted to nothing
            with what it is fitted to, or a negative k.
    """
    if parameters.num_training < 2:
        raise LabError(f"num_training is {parameters.num_training}; expected at least 2")
    if isinstance(parameters, PictureTuningParameters) and parameters.num_pretraining < 1:
        raise LabError(f"num_pretraining is {parameters.num_pretraining}; expected at least 1")
    if isinstance(parameters, TextTuningParameters) and parameters.num_choices < 2:
        raise LabError(f"num_choices is {parameters.num_choices}; expected at least 2")
    if not 0 <= parameters.fault_share < 1:
        raise LabError(f"fault_share is {parameters.fault_share}; expected 0 to below 1")
    if not 0 < 2 * parameters.max_tokens <= parameters.budget_tokens:
        raise LabError(
            f"max_tokens is {parameters.max_tokens} and budget_tokens {parameters.budget_tokens}; a pack has to "
            "hold a faulty sample too, which may be twice as long as a clean one"
        )
    name, fitted_by = parameters.loss_filter, parameters.fitted_by
    choose({**dict.fromkeys(LOSS_FILTERS), RANDOM: None, ORACLE: None}, name, "loss filter")
    if fitted_by != "corpus" and name not in LOSS_FILTERS:
        raise LabError(f"loss filter {name!r} is fitted to nothing, so not by {fitted_by!r}; leave it at 'corpus'")
    if not parameters.k >= 0:
        raise LabError(f"k is {parameters.k}; expected at least 0 standard deviations")


def filter_cell(parameters: TuningParameters, tuning: Tuning) -> Filtered:
    """What a cell trains on; `random` is as large as `gaussian` at the cell's k, and drawn anew by each seed.

    The filter sees the losses alone; `oracle` sees the planted faults, and so is no filter.
    """
    check_tuning(parameters)
    name, samples = parameters.loss_filter, tuning.train.samples
    if name == ORACLE:
        reasons = [fault and f"planted: {fault.replace('_', ' ')}" for fault in tuning.faults]
        return Filtered(tuning.train.ids, reasons, name=ORACLE)
    if parameters.fitted_by == "source":
        return filter_losses_by_group(tuning.losses, ["/".join(one.kind) for one in samples], name, k=parameters.k)
    return filter_losses(tuning.losses, name, k=parameters.k, seed=parameters.seed)


def text_tuning(parameters: TextTuningParameters, *, say: Say = quiet) -> Tuning:
    """Open a cell on instructions of text alone; the first call scores, with another language model.

    Only what the fine-tuned language model can read within `max_tokens` is chosen from, whatever the cell trains.

    Raises:
        LabError: a source that cannot be read, too few instructions, or as `plant_faults` and `score`.
    """
    device = choose_device(parameters.device)
    opened = _chat_model(parameters.language_model, parameters)
    model = OmniModel(language_model=opened, positions="sequential").to(device)
    facts: dict[str, Any] = {"sources": {}, "licences": {}, "left_out": {}}
    found: dict[str, list[Sample]] = {}
    sources: tuple[tuple[str, tuple[Split, ...]], ...] = (
        (parameters.instructions, ("train",)),
        (parameters.test_instructions, ("dev", "test")),
    )
    for source, splits in sources:
        reading = read_instructions(source)
        parted = split_instructions(reading.samples)
        left_out = reading.left_out.counts()
        for split in splits:
            found[split], reasons = _readable(SampleExamples(samples=parted[split]), model, parameters.max_tokens)
            left_out += reasons
        facts["sources"] |= dict(reading.sources)
        facts["licences"][source] = reading.licence
        facts["left_out"][source] = dict(left_out)
    train = SampleExamples(samples=_chosen(found["train"], parameters.num_training, "training"))
    held_out: dict[str, SampleExamples] = {}
    for split in ("test", "dev") if parameters.measure_dev else ("test",):
        clean = _chosen(found[split], parameters.num_test, split)
        asked = with_choices(clean, writer_of(opened), num_choices=parameters.num_choices)
        held_out[split] = SampleExamples(samples=asked, name=parameters.test_instructions)
        facts[f"{split}_sha256"] = samples_sha256(clean)

    def scorer() -> Scorer:
        return text_scorer(_chat_model(parameters.scorer, parameters), device)

    own = f" {parameters.pretraining_steps}" if parameters.scorer in OWN_LANGUAGE_MODELS else ""
    start = Start(model=model, train=train, held_out=held_out, facts=facts)
    options = {"budget_tokens": scored_tokens(parameters), "part_samples": 256}
    return _scored(parameters, start, f"{parameters.scorer}{own}", scorer, say("losses, instructions"), **options)


def scored_tokens(parameters: TextTuningParameters) -> int:
    """Of a pack in which a cell's training instructions are scored: none of them is too long for it."""
    return max(SCORED_TOKENS, parameters.max_tokens)


def picture_tuning(parameters: PictureTuningParameters, *, say: Say = quiet) -> Tuning:
    """Open a cell on questions about pictures; the first call pretrains the model, which then scores them."""
    check_tuning(parameters)
    start = open_pretrained(parameters, say=say)
    scorer = picture_scorer(parameters, start)
    options = {"budget_tokens": parameters.budget_tokens, "part_samples": 512}
    return _scored(parameters, start, scorer.sha256, lambda: scorer, say("losses, examples"), **options)


def picture_scorer(parameters: PictureTuningParameters, start: Start) -> Scorer:
    """The pretrained model of a study of pictures, as it scores what it is not trained on."""
    return Scorer(start.model, f"{PRETRAINING} of {parameters.images}", start.ancestry[-1].sha256, start.train)


def _scored(
    parameters: TuningParameters,
    start: Start,
    scorer_key: str,
    open_scorer: Callable[[], Scorer],
    progress: Callable[..., None],
    *,
    budget_tokens: int,
    part_samples: int,
) -> Tuning:
    """Clean samples with faults planted, and their losses by a scorer, which is opened where they are not there."""
    planted = plant_faults(start.train.samples, share=parameters.fault_share, seed=parameters.fault_seed)
    train = replace(start.train, samples=planted.samples)
    options = ScoringOptions(
        budget_tokens=budget_tokens, without_prompt=True, part_samples=part_samples, precision=parameters.precision
    )
    computed = [start.model.device.type, choose_precision(options.precision, start.model.device)]
    identity = json.dumps([scorer_key, train.sha256, budget_tokens, *computed])
    folder = cache_dir() / "scores" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if not (folder / SUMMARY).exists():
        score(open_scorer(), train.samples, folder, options=options, progress=lambda done: progress(done, len(train)))
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    if skipped := summary["skipped"]:
        raise LabError(
            f"scorer {summary['model']!r} has no loss of {sum(skipped.values())} of {len(train)} training samples "
            f"({', '.join(skipped)}); choose another scorer, or lower max_tokens"
        )
    made = {"train": train, "faults": planted.faults, "losses": read_losses(folder)}
    found = {**made, "scorer_sha256": summary["model_sha256"]}
    return Tuning(**{**vars(start), **found, "folders": (*start.folders, folder)})


def _chat_model(name: str, parameters: TextTuningParameters) -> LanguageModel:
    return as_chat_model(open_language_model(name, pretraining_steps=parameters.pretraining_steps))


def _readable(examples: SampleExamples, model: OmniModel, max_tokens: int) -> tuple[list[Sample], Counter[str]]:
    reasons = [examples.why_not_readable(index, model, max_tokens=max_tokens) for index in range(len(examples))]
    read = [sample for sample, reason in zip(examples.samples, reasons, strict=True) if reason is None]
    return read, Counter(reason for reason in reasons if reason)


def _chosen(instructions: Sequence[Sample], count: int, what: str) -> tuple[Sample, ...]:
    """As many of every source as there are of the smallest, until those run out: no source drowns the others."""
    if len(instructions) < count:
        raise LabError(f"there are {len(instructions)} {what} instructions that can be read, fewer than {count}")
    rng = np.random.default_rng([count, len(instructions)])
    of_source: dict[str, list[Sample]] = {}
    for index in rng.permutation(len(instructions)):
        of_source.setdefault(instructions[int(index)].source, []).append(instructions[int(index)])
    chosen: list[Sample] = []
    for turn in range(count):
        for source in sorted(of_source):
            chosen += of_source[source][turn : turn + 1]
        if len(chosen) >= count:
            break
    return tuple(chosen[:count])


def as_vision(cell: PictureTuningParameters) -> VisionParameters:
    """The same cell as one of a study of images alone; what decides nothing of a picture as it is there by default."""
    return VisionParameters(
        **{name: getattr(cell, name) for name in VisionParameters.names() if hasattr(cell, name)},
        curriculum="image",
        num_images=cell.num_pretraining + cell.num_training,
        videos="",
        num_videos=0,
        batch_tokens=cell.budget_tokens,
    )


def open_pretrained(parameters: PictureTuningParameters, *, say: Say = quiet) -> Start:
    """Open the pretrained model of a study of pictures; the first call trains it, under a lock.

    In the paper one pretrained model scores and is fine-tuned. Here it is trained on the first examples of the training
    side, clean ones that are never fine-tuned on.

    Raises:
        LabError: fewer examples than two to fine-tune on or one to pretrain on, or weights that cannot be read.
    """
    cell, device = as_vision(parameters), choose_device(parameters.device)
    encoder = open_vision_encoder(
        parameters.vision_encoder,
        image_size=parameters.image_size,
        stride=parameters.stride,
        progress=say(f"{parameters.vision_encoder}, steps"),
    )
    splits = seen_data(cell, encoder, progress=say("pictures, samples"))
    opened = open_language_model(parameters.language_model, pretraining_steps=parameters.pretraining_steps)
    torch.manual_seed(parameters.scorer_seed)
    model = seeing_model(cell, encoder, opened, splits).to(device)
    first, clean, left_out = _parted(splits[IMAGE], model, parameters)
    stage, _ = cell_stages(parameters)
    told = say("pretrained model of pictures, steps")
    folder = _pretrained_folder(parameters, encoder, opened, device)

    def make(made: Path) -> None:
        options = replace(TrainingOptions.of(parameters), warmup_steps=round(WARMUP_SHARE * stage.length()))
        record = train_stages(
            model,
            [stage],
            {IMAGE: first},
            options,
            batches=cell_batches(parameters),
            seed=parameters.scorer_seed,
            checkpoint=folder.with_suffix(".checkpoint"),
            on_step=lambda step, loss: told(step + 1, parameters.scorer_steps, loss),
        )
        # Cloned: tied weights share their memory, which safetensors refuses.
        trained = {name: own.clone() for name, own in model.state_dict().items() if name.split(".")[0] in stage.trained}
        write_tensors(made / WEIGHTS, trained, {"ancestry": json.dumps(as_json(record.ancestry))})
        facts = {
            "source": parameters.images,
            "pretrained_on": len(first),
            "left_out": dict(left_out),
            "parameters": {name: getattr(parameters, name) for name in _DECIDING},
            **{f"pretraining_{name}": value for name, value in (record.results() | record.costs()).items()},
        }
        write_whole(made / FACTS, json.dumps(facts, indent=1) + "\n")

    make_folder(folder, make)
    metadata, tensors = read_tensors(folder / WEIGHTS)
    model.load_state_dict(tensors, strict=False)
    model.eval()
    return Start(
        model=model,
        train=clean,
        held_out={name: split for name, split in splits.items() if name in ("dev", "test")},
        facts=json.loads((folder / FACTS).read_text(encoding="utf-8")),
        folders=(folder, *(split.store.folder for split in splits.values() if split.store)),
        ancestry=from_json(json.loads(metadata["ancestry"]), str(folder / WEIGHTS)),
        opened={"vision_encoder": encoder, **({} if parameters.train_language_model else {"language_model": opened})},
    )


def _parted(
    images: SampleExamples, model: OmniModel, parameters: PictureTuningParameters
) -> tuple[SampleExamples, SampleExamples, Counter[str]]:
    """Examples to pretrain on and to fine-tune on; a group that the first have begun is in none of the second."""
    count = parameters.num_pretraining
    first, rest = (replace(images, samples=some) for some in (images.samples[:count], images.samples[count:]))
    begun = {sample.group for sample in first.samples}
    pretraining, left_out = _readable(first, model, parameters.max_tokens)
    read, reasons = _readable(rest, model, parameters.max_tokens)
    tuning = [sample for sample in read if sample.group not in begun]
    left_out += reasons
    if len(tuning) < len(read):
        left_out["of a group that was pretrained on"] = len(read) - len(tuning)
    for what, found, given, least in (("pretraining", pretraining, first, 1), ("fine-tuning", tuning, rest, 2)):
        if len(found) < least:
            why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
            raise LabError(
                f"{len(found)} of {len(given)} examples of {parameters.images!r} can be read for {what}, fewer "
                f"than {least}; left out: {why or 'none'}"
            )
    return replace(images, samples=pretraining), replace(images, samples=tuning), left_out


def _pretrained_folder(
    parameters: PictureTuningParameters, encoder: VisionEncoder, language_model: LanguageModel, device: torch.device
) -> Path:
    facts = {name: getattr(parameters, name) for name in _DECIDING}
    made_of = [sources_sha256(parameters.images), SAMPLES_VERSION, encoder.key, language_model.sha256]
    computed = [device.type, choose_precision(parameters.precision, device)]
    identity = json.dumps([MODEL_VERSION, facts, made_of, computed], sort_keys=True)
    name = f"image_text-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    return cache_dir() / "vision_language_models" / name
