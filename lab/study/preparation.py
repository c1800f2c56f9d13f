"""What the cells of a study need is checked and made once, before any of them runs, whatever kind of study it is.

Corpora, features, views, instructions with their losses, language models: each kind of parameters (`CHECKS`, `MAKES`)
says what it needs of them. The project's own language models are pretrained in processes of their own meanwhile.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from lab.data.fetch import packages, sha256_of
from lab.errors import LabError, choose
from lab.paths import cache_dir, write_whole
from lab.study.definitions import digest
from lab.study.identity import package_versions, processor, value_key
from lab.study.limits import visible_gpus
from lab.study.reach import sources_hash
from lab.training.parameters import (
    OmniParameters,
    Parameters,
    PictureTuningParameters,
    SightedParameters,
    SpeechParameters,
    TextTuningParameters,
    TrainedParameters,
    TuningParameters,
    VisionParameters,
)

T = TypeVar("T")

Ingredients = dict[str, Any]
"""What a cell's data were made from, by parameter; of many cells by parameter and value."""

Made = tuple[Ingredients, list[str]]
"""Ingredients, and the folders that must still be there, and the files as they are, for them to count."""

_FILTER = ("loss_filter", "k", "fitted_by")
_TRAINING = ("steps", "warmup_steps", "checkpoint_every")
_RATES = ("learning_rate", "weight_decay")
_SIGHT = ("projector", "pool_size", "padding", "projector_options", "marks_places", "train_language_model")
DECIDES_NOTHING: Mapping[type[Parameters], Sequence[str]] = {
    SpeechParameters: (
        *("projector", "downsample_rate", "parameter_budget", "projector_options", "prompt", "positions"),
        *("batch_size", "pack_tokens", "max_tokens", "num_time_masks", "time_mask_frames", "feature_noise"),
        *("shift_windows", "num_beams", "measure_dev", *_TRAINING, *_RATES),
    ),
    VisionParameters: (
        *("video_projector_start", "first_share", "image_share", "batch_tokens", "batch_size", "packed"),
        *("language_model_learning_rate", "encoder_learning_rate", *_SIGHT, *_TRAINING, *_RATES),
    ),
    TextTuningParameters: ("num_choices", "budget_tokens", "measure_dev", *_FILTER, *_TRAINING, *_RATES),
    PictureTuningParameters: (*_FILTER, *_TRAINING),
    OmniParameters: ("num_between", "positions", "batch_tokens", "packed", *_TRAINING, *_RATES),
}
"""Parameters of which what is made depends on none: cells that differ in these alone share it."""


def prepare(cells: Sequence[Parameters]) -> Ingredients:
    """Check these cells, make ready what they need, and return what it was made from, by parameter and value.

    It is remembered under a hash of everything that it depends on, so that a sweep with nothing to do need not import
    torch.

    Raises:
        LabError: an unknown name of a component, source, device or precision; a number out of range; what cannot be
            fetched, read or trained; a full disk.
    """
    distinct = {repr({**cell.as_dict(), "seed": 0}): cell for cell in cells}
    folders = folder_states(name for cell in distinct.values() for name in _possible_folders(cell))
    pinned = {name: package.sha256 for name, package in packages().items()}
    # Processor and GPUs tell whether `auto` comes to the same as before, without asking torch.
    machine = [package_versions(), processor(), visible_gpus()]
    identity = json.dumps([*distinct, folders, sources_hash(), pinned, *machine], sort_keys=True)
    memo = cache_dir() / "prepared" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
    known = json.loads(memo.read_text(encoding="utf-8")) if memo.is_file() else None
    # Relative to the cache, which may have been moved or copied.
    if known and all(_state(cache_dir() / made) == state for made, state in known["made"].items()):
        return dict(known["ingredients"])
    memo.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{memo}.lock"):
        for cell in distinct.values():
            check_cell(cell)
        ingredients, needed = _made(list(distinct.values()))
        needed += _pins(name for cell in distinct.values() for name in _possible_folders(cell))
        cache = cache_dir()
        names = {os.path.relpath(p, cache) if Path(p).is_relative_to(cache) else os.path.abspath(p) for p in needed}
        made = {name: _state(cache / name) for name in sorted(names)}
        write_whole(memo, json.dumps({"ingredients": ingredients, "made": made}))
    return ingredients


def _state(path: Path) -> list[int] | str:
    """Whether a folder is there; of a file, what tells that it is another one now."""
    if not path.is_file():
        return "there" if path.exists() else "gone"
    return [path.stat().st_size, path.stat().st_mtime_ns]


def _pins(names: Iterable[str]) -> list[str]:
    """Where it is kept at which commit data sets of the hub are read: another commit, or none, is prepared again."""
    from lab.data.hub import pin

    return [str(pin(name)) for name in names if os.path.isfile(pin(name))]


def folder_states(names: Iterable[str]) -> dict[str, list[tuple[str, int, int]]]:
    """What tells whether a folder among the names has changed: its files, their sizes and when they were written."""
    states = {}
    # Not Path's own, which raises an error of a name that is too long, as a prompt may be.
    for folder in (Path(name) for name in sorted({name for name in names if name and os.path.isdir(name)})):
        files = [(str(path.relative_to(folder)), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
        states[str(folder)] = [(name, status.st_size, status.st_mtime_ns) for name, status in files]
    return states


def check_cell(cell: Parameters) -> None:
    """Refuse a cell that cannot be, before anything is fetched or made: unknown names, numbers that do not fit."""
    _by_kind(MAKES, cell)
    for kind, check in CHECKS.items():
        if isinstance(cell, kind):
            check(cell)


def _possible_folders(cell: Parameters) -> Iterator[str]:
    """What may be a folder of the user's own, or a data set of the hub: one that is changed is prepared again."""
    values = [
        one for value in cell.as_dict().values() for one in (value.values() if isinstance(value, dict) else [value])
    ]
    for value in values:
        for part in value.split("+") if isinstance(value, str) else ():
            yield from (part, part.partition("hub:")[2].partition(":")[0])


def _made(cells: Sequence[Any]) -> Made:
    wanted = {_deciding(cell): cell for cell in cells}.values()

    def make() -> Made:
        ingredients: Ingredients = {}
        folders: list[str] = []
        for cell in wanted:
            made, own = _by_kind(MAKES, cell)(cell)
            folders += own
            for name, value in {**made, **computed_with(cell)}.items():
                ingredients.setdefault(name, {})[value_key(getattr(cell, name))] = value
        return ingredients, folders

    ingredients, folders = _with_language_models(list(wanted), make)
    return ingredients, sorted(set(folders))


def _deciding(cell: Parameters) -> str:
    """What of a cell decides what is made for it."""
    nothing = {"seed", *_by_kind(DECIDES_NOTHING, cell)}
    return repr({name: value for name, value in cell.as_dict().items() if name not in nothing})


def _by_kind(entries: Mapping[type[Parameters], T], cell: Parameters) -> T:
    for kind in type(cell).__mro__:
        if kind in entries:
            return entries[kind]
    raise LabError(
        f"{type(cell).__name__} is no kind of study that can be prepared; let the ablation's parameters be of one that "
        f"is ({', '.join(kind.__name__ for kind in entries)}), or give it a function prepare(cells)"
    )


def _with_language_models(wanted: Sequence[Any], make: Callable[[], Made]) -> Made:
    """What `make` makes, and the cells' language models, pretrained beside it where one is the project's own."""
    from lab.training.named_parts import OWN_LANGUAGE_MODELS, open_language_model

    chosen = sorted({(cell.language_model, cell.pretraining_steps) for cell in wanted})
    # Asked here, so that what cannot be fetched is said before anything else is made.
    own = {
        (name, steps): OWN_LANGUAGE_MODELS[name]().folder(steps)
        for name, steps in chosen
        if name in OWN_LANGUAGE_MODELS
    }
    context = multiprocessing.get_context("spawn")
    pretraining = [context.Process(target=_pretrain, args=one) for one in own]
    for process in pretraining:
        process.start()
    try:
        ingredients, folders = make()
        for process in pretraining:
            process.join()
    finally:
        for process in pretraining:
            process.terminate()  # nothing where it has ended
    if any(process.exitcode for process in pretraining):
        raise LabError("a language model could not be pretrained; its own words stand above")
    ingredients["language_model"] = {
        name: sha256_of(own[name, steps] / "model.safetensors")
        if (name, steps) in own
        else open_language_model(name).sha256
        for name, steps in chosen
    }
    return ingredients, [*folders, *map(str, own.values())]


def computed_with(cell: TrainedParameters) -> Ingredients:
    """Device and precision of a cell, where it says `auto` what that is on this machine: they move a result."""
    from lab.training.loop import choose_device, choose_precision

    device: str = cell.device
    precision: str = cell.precision
    if "auto" in (device, precision) or device != "cuda":  # cells that name all may be for another machine
        chosen = choose_device(device)
        device, precision = chosen.type, choose_precision(precision, chosen)
    return {"device": device, "precision": precision}


def say(what: str) -> Callable[..., None]:
    """A progress call that prints a line at each twentieth of the work."""
    said = -1

    def print_line(done: int, total: int, loss: float | None = None) -> None:
        nonlocal said
        if done == total or done * 20 // total > said:
            said = done * 20 // total
            print(
                f"preparing: {what} {done} of {total}" + (f", loss {loss:.3f}" if loss is not None else ""), flush=True
            )

    return print_line


def _pretrain(name: str, steps: int) -> None:
    """Run in a process of its own, on one thread: batches are too small to share between two."""
    import torch

    from lab.training.named_parts import OWN_LANGUAGE_MODELS

    torch.set_num_threads(1)
    OWN_LANGUAGE_MODELS[name]().pretrain(steps=steps, progress=say(f"language model {name}, steps"))


def _check_language_model(name: str) -> None:
    """Refuse a name that no language model has; a hub's or folder's is let pass."""
    from lab.parts.language_models import LANGUAGE_MODELS
    from lab.training.named_parts import OWN_LANGUAGE_MODELS

    if "/" not in name and not Path(name).is_dir():
        forms = dict.fromkeys(("OWNER/NAME of a causal model on the hub", "a folder"))
        choose({**LANGUAGE_MODELS, **OWN_LANGUAGE_MODELS, **forms}, name, "language model")


def _check_trained(cell: TrainedParameters) -> None:
    from lab.training.cell import cell_batches, cell_stages

    _check_language_model(cell.language_model)
    computed_with(cell)
    cell_stages(cell)
    cell_batches(cell)


def _check_speech(cell: SpeechParameters) -> None:
    import torch

    from lab.data.normalizers import NORMALIZERS
    from lab.training.cell import cell_audio_projector

    choose(NORMALIZERS, cell.normalizer, "normaliser")
    with torch.device("meta"):
        # The smallest encoder and language model of any rung: a budget that holds there is the one to check.
        cell_audio_projector(cell, hidden_size=384, output_size=192)


def _check_sight(cell: SightedParameters) -> None:
    import torch

    from lab.data.sources import check_source
    from lab.training.cell import cell_visual_projector
    from lab.training.named_parts import check_vision_encoder

    check_vision_encoder(cell.vision_encoder)
    with torch.device("meta"):
        # As wide as the cpu rung's encoder and language model.
        cell_visual_projector(cell, hidden_size=112, output_size=192)
    for source in filter(None, _sources(cell).values()):
        check_source(source)


def _check_tuning(cell: TuningParameters) -> None:
    from lab.training.tuning import check_tuning

    check_tuning(cell)
    if isinstance(cell, TextTuningParameters):
        _check_language_model(cell.scorer)


def _check_omni(cell: OmniParameters) -> None:
    from lab.data.sources import check_source
    from lab.training.cell import cell_stages, kind_source

    for part in ("hears", "sees"):
        if shared := sorted({*getattr(cell, part)} & {*TrainedParameters.names()}):
            raise LabError(f"{shared[0]} in {part!r} is of the whole model; give it as a parameter of its own")
    if cell.learning_rate != OmniParameters.learning_rate:
        raise LabError(
            f"learning_rate is {cell.learning_rate}; of the whole model every stage has its own (`learning_rates`)"
        )
    if cell.num_samples < 1 or cell.num_test < 1:
        raise LabError(f"num_samples is {cell.num_samples} and num_test {cell.num_test}; expected at least 1 each")
    _check_speech(cell.hearing)
    _check_sight(replace(cell.seeing, images="", videos="", test_source=""))
    for source in (*cell.data.values(), *cell.tests.values()):
        check_source(source)
    for kind in (kind for stage in cell_stages(cell) for kind in stage.data):
        check_source(kind_source(cell, kind))


CHECKS: Mapping[type[Parameters], Callable[[Any], None]] = {
    TrainedParameters: _check_trained,
    SpeechParameters: _check_speech,
    SightedParameters: _check_sight,
    TuningParameters: _check_tuning,
    OmniParameters: _check_omni,
}


def _make_speech(cell: SpeechParameters) -> Made:
    import torch

    from lab.data.normalizers import NORMALIZERS
    from lab.data.speech.corpora import load_corpus
    from lab.training.cell import heard_data
    from lab.training.named_parts import open_audio_encoder

    threads = torch.get_num_threads()
    if cell.language_model == "character":  # which is pretrained meanwhile, on one thread
        torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    encoder = open_audio_encoder(cell.audio_encoder, window=cell.encoder_window)
    data = heard_data(cell, encoder, progress=say("features, utterances"))
    torch.set_num_threads(threads)
    named = {"corpus": cell.corpus, "out_of_domain_corpus": cell.out_of_domain_corpus}
    corpora = {key: load_corpus(name, num_utterances=cell.num_utterances) for key, name in named.items() if name}
    for corpus in corpora.values():
        if problems := corpus.manifest["problems"]:
            counts = ", ".join(f"{count} {reason}" for reason, count in corpus.manifest["skipped"].items())
            print(f"preparing: {corpus.name}, left out: {counts}; the first at fault: {problems[0]}", flush=True)
    made_of = {key: f"{corpus.name} {corpus.sha256}" for key, corpus in corpora.items()}
    ingredients = {
        **dict.fromkeys(named, "none"),
        **made_of,
        "audio_encoder": encoder.key,
        "normalizer": NORMALIZERS[cell.normalizer].version,
    }
    kept = [str(one) for split in data.values() for store in split.heard for one in store.folders]
    return ingredients, [*(str(corpus.folder) for corpus in corpora.values()), *kept]


def _sources(cell: SightedParameters) -> dict[str, str]:
    """Where pictures and video come from, by parameter; empty for none."""
    videos = {"videos": cell.videos} if isinstance(cell, VisionParameters) else {}
    return {"images": cell.images, **videos, "test_source": cell.test_source}


def _made_of(cell: SightedParameters, encoder: Any, splits: Iterable[Any]) -> tuple[Ingredients, list[str]]:
    """The ingredients of what a cell is shown, and its vision encoder; and the files that rows of data sets name.

    These files may lie outside of the data set's own folder, and count by what is in them.
    """
    from lab.data.sample import Text, samples_sha256
    from lab.data.sources import HUB, sources_sha256

    made_of = {key: sources_sha256(source) if source else "none" for key, source in _sources(cell).items()}
    samples = [one for split in splits for one in split.samples if HUB in one.source]
    for key, source in _sources(cell).items():
        if HUB in source:
            made_of[key] += f" {samples_sha256(one for one in samples if one.source.startswith(source))}"
    shown = {part.source for one in samples for part in one.content if not isinstance(part, Text)}
    files = [str(source) for source in shown if isinstance(source, Path)]
    return {**made_of, "vision_encoder": encoder.weights_sha256}, files


def _say_left_out(splits: Iterable[Any]) -> None:
    """Print what of the splits' sources cannot be used, where there is any."""
    from lab.data.filters.filtering import left_out_account

    for split in splits:
        if split.left_out:
            print(f"preparing: {split.name}, {left_out_account(split.left_out)}", flush=True)


def _make_vision(cell: VisionParameters) -> Made:
    from lab.training.cell import seen_data
    from lab.training.named_parts import open_vision_encoder

    name, told = cell.vision_encoder, say(f"{cell.vision_encoder}, steps")
    encoder = open_vision_encoder(name, image_size=cell.image_size, stride=cell.stride, progress=told)
    data = seen_data(cell, encoder, progress=say("pictures and frames, samples"))
    _say_left_out(data.values())
    ingredients, files = _made_of(cell, encoder, data.values())
    return ingredients, [
        *files,
        *(str(folder) for split in data.values() if split.store for folder in split.store.folders),
    ]


def _make_pictures(cell: PictureTuningParameters) -> Made:
    from lab.data.sample import samples_sha256
    from lab.training.tuning import picture_tuning

    tuning = picture_tuning(cell, say=say)
    splits = (tuning.train, *tuning.held_out.values())
    _say_left_out(splits)
    ingredients, files = _made_of(cell, tuning.opened["vision_encoder"], splits)
    ingredients["images"] += f" {samples_sha256(tuning.train.samples)} {tuning.scorer_sha256}"
    return ingredients, [*files, *map(str, tuning.folders)]


def _make_text(cell: TextTuningParameters) -> Made:
    from lab.data.sample import samples_sha256
    from lab.training.tuning import text_tuning

    tuning = text_tuning(cell, say=say)
    ingredients = {
        "instructions": samples_sha256(tuning.train.samples),
        "test_instructions": tuning.facts["test_sha256"],
        "scorer": tuning.scorer_sha256,
    }
    return ingredients, [*map(str, tuning.folders)]


def _make_omni(cell: OmniParameters) -> Made:
    from lab.data.normalizers import NORMALIZERS
    from lab.data.sample import samples_sha256
    from lab.data.sources import sources_sha256
    from lab.training.cell import omni_data
    from lab.training.named_parts import open_encoders

    encoders = open_encoders(cell, progress=say(f"{cell.seeing.vision_encoder}, steps"))
    data = omni_data(cell, encoders, progress=say("pictures, frames and sounds, samples"))
    stores = [one for own in (data.kinds, data.tests, data.kept, *data.own.values()) for one in own.values()]
    _say_left_out([*data.kinds.values(), *data.tests.values()])
    ingredients = {
        "data": str({key: digest(sources_sha256(source)) for key, source in cell.data.items()}),
        # Files that rows of a data set name may lie outside of its folder, and count by what is in them.
        "stages": str({kind: digest(samples_sha256(split.samples)) for kind, split in data.kinds.items()}),
        "tests": str(
            {key: digest(sources_sha256(cell.tests[key]) + samples_sha256(t.samples)) for key, t in data.tests.items()}
        ),
        "hears": f"{encoders['audio_encoder'].key} {NORMALIZERS[cell.hearing.normalizer].version}",
        "sees": encoders["vision_encoder"].weights_sha256,
    }
    kept = [store for one in stores for store in (*one.heard, *filter(None, [one.store]))]
    return ingredients, sorted({str(folder) for store in kept for folder in store.folders})


MAKES: Mapping[type[Parameters], Callable[[Any], Made]] = {
    SpeechParameters: _make_speech,
    VisionParameters: _make_vision,
    TextTuningParameters: _make_text,
    PictureTuningParameters: _make_pictures,
    OmniParameters: _make_omni,
}
