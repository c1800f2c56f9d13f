"""A cell's identity: a hash of everything that decides its result, named piece by piece.

Parameters, the notebook, the definitions that it reaches (`lab.study.reach`), what was prepared (corpora, weights, the
normaliser's version, what `auto` comes to as device and precision), and the versions of the packages that decide a
result.

The pieces (`ingredients`) are kept beside the run, so that a cell whose hash changed can say which piece did. What is
hashed are the *resolved* parameters, never the difference to `base`: a baseline that two ablations share runs once, and
a changed default is a new run.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from lab import paths
from lab.errors import LabError
from lab.study.ablation import Cell
from lab.study.definitions import code_hash, digest
from lab.study.reach import notebook_code, our_modules, reached_by_notebook

PACKAGES = ("torch", "transformers", "timm", "numpy", "pillow", "jiwer")
"""The packages whose version decides a result."""


def _canonical(value: Any) -> Any:
    """`value` as JSON has it, such that 1 and 1.0 are one, as are tuples and lists."""

    def number(text: str) -> float | int:
        return int(float(text)) if float(text).is_integer() else float(text)

    try:
        return json.loads(json.dumps(value, allow_nan=False), parse_float=number)
    except (TypeError, ValueError):
        raise LabError(
            f"a parameter is {value!r}, which has no identity; use finite numbers, strings, booleans, lists or None"
        ) from None


def _key(facts: Mapping[str, Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of all that decides a result, as canonical JSON."""
    return digest(json.dumps(_canonical(facts), sort_keys=True))


def notebook_hash(path: Path) -> str:
    """A hash of what the code cells do, the parameters' left out, whose values are ingredients of their own."""
    return code_hash(notebook_code(path), our_modules())


def package_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Installed versions, "missing" where there is none."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "missing"
    return versions


@cache
def processor() -> str:
    """The processor's model and a hash of its abilities: libraries choose their kernels by both."""
    with suppress(OSError):
        told = dict[str, str]()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            told.setdefault(name.strip(), value.strip())
        flags = told.get("flags", told.get("Features", ""))
        model = told.get("model name", platform.machine())
        return f"{model} {hashlib.sha256(flags.encode()).hexdigest()[:8]}"
    return platform.processor()


def value_key(value: Any) -> Any:
    """What stands for a parameter's value where prepared things are looked up: itself, or the hash of a mapping."""
    return digest(json.dumps(value, sort_keys=True)) if isinstance(value, Mapping) else value


def is_prepared(cell: Cell, prepared: Mapping[str, Any]) -> bool:
    """Whether the prepared mappings hold what this cell's parameters name (see `identify`)."""
    return all(
        value_key(cell.parameters.get(name)) in value for name, value in prepared.items() if isinstance(value, Mapping)
    )


def _prepared_for(cell: Cell, prepared: Mapping[str, Any]) -> dict[str, Any]:
    """The prepared ingredients that concern this cell (see `identify`)."""
    chosen = {
        name: value_key(cell.parameters.get(name)) for name, value in prepared.items() if isinstance(value, Mapping)
    }
    for name, value in chosen.items():
        if value not in prepared[name]:
            raise LabError(f"nothing was prepared for {name} = {cell.parameters.get(name)!r}, which {cell.title} needs")
    return {name: value[chosen[name]] if name in chosen else value for name, value in prepared.items()}


def identify(cells: Sequence[Cell], notebook: Path, prepared: Mapping[str, Any]) -> list[Cell]:
    """The cells with their ingredients and keys.

    Args:
        prepared: what the ablation's `prepare` returned (hashes of corpora and weights, the normaliser's version). A
            plain value belongs to every cell. A mapping belongs to the parameter of the same name and is looked up
            with the cell's value: `{"corpus": {"amazon_queen": "5b3c...", "espeak": "91aa..."}}`.
    """
    shared = {f"package.{name}": version for name, version in package_versions().items()}
    shared["notebook"] = notebook_hash(notebook)
    reached = reached_by_notebook(notebook)
    identified = []
    for cell in cells:
        ingredients = {
            # No options are what a cell had before there was a parameter for them.
            **{f"parameter.{name}": _canonical(value) for name, value in cell.parameters.items() if value != {}},
            **{f"prepared.{name}": value for name, value in _prepared_for(cell, prepared).items()},
            **{f"code.{name}": hashed for name, hashed in reached(cell.parameters).items()},
            **shared,
        }
        identified.append(replace(cell, ingredients=ingredients, key=_key(ingredients)))
    return identified


def changed_ingredients(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One short phrase an ingredient that differs: `code.ConvGMLP: 1f3a... -> 77b0...`."""
    told = ((name, before.get(name, "absent"), now.get(name, "absent")) for name in sorted({*before, *now}))
    return [f"{name}: {old} -> {new}" for name, old, new in told if old != new]


def checkpoint_of(notebook: str, parameters: Mapping[str, Any]) -> Path:
    """Where a cell's checkpoint lies: one place for the same parameters, code and packages; a killed cell goes on."""
    return paths.mlruns_dir() / "checkpoints" / f"{notebook}-{_made_by(notebook, parameters, parameters)}.safetensors"


def stages_folder(notebook: str, parameters: Mapping[str, Any]) -> Path:
    """Where the weights after the stages of a cell stay, which cells share that begin with the same stages."""
    shared = {name: value for name, value in parameters.items() if name not in ("stages", "steps", "seed")}
    return paths.mlruns_dir() / "stages" / f"{notebook}-{_made_by(notebook, parameters, shared)}"


def _made_by(notebook: str, parameters: Mapping[str, Any], deciding: Mapping[str, Any]) -> str:
    code = reached_by_notebook(paths.repository_root() / "notebooks" / f"{notebook}.ipynb")(parameters)
    return _key({"parameters": dict(deciding), "packages": package_versions(), "code": code})
