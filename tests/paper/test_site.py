"""The page of components: all dicts of parts, data and training, every entry with words and a place in the paper."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any

import pytest

from lab.errors import LabError
from lab.paper.site import NOT_IN_THE_PAPER, Components, component_page, components, modules
from lab.parts.audio_projectors import AUDIO_PROJECTORS
from lab.training.stages import PAPER_STAGES

NO_COMPONENTS = {
    "lab.data.fetch.CLIENTS": "programs that download",
    "lab.data.filters.sound_filters.SOUND_MEASURES": "shown as filters of samples",
    "lab.data.recipes.engines.ENGINES": "where a recipe is worked on",
    "lab.data.filters.step.LENGTHS": "units of one step",
    "standins.scenes.scene.PATTERNS": "backgrounds of scenes",
    "lab.training.memory.PRECISIONS": "bytes of numbers, for counting",
}


def is_component(entry: Any) -> bool:
    """A class or function, data of a class of its own, or a tuple with such."""
    if isinstance(entry, tuple):
        return any(map(is_component, entry))
    return callable(entry) or is_dataclass(entry)


def test_every_dict_of_components_is_on_the_page() -> None:
    shown = {f"{page.module}.{page.dict}" for page in components().values()}
    found = set()
    for name in modules():
        if name.startswith(("lab.parts", "lab.data", "lab.training", "standins.")):
            for attribute, value in vars(import_module(name)).items():
                if not re.fullmatch("[A-Z][A-Z_]+", attribute) or not isinstance(value, Mapping) or not value:
                    continue
                if all(isinstance(key, str) and is_component(entry) for key, entry in value.items()):
                    found.add((attribute, id(value)))  # a dict is imported elsewhere, too
    places = [where.rpartition(".") for where in shown | NO_COMPONENTS.keys()]
    known = {(attribute, id(getattr(import_module(module), attribute))) for module, _, attribute in places}
    assert {attribute for attribute, _ in found - known} == set()
    assert len(found) > 30


@pytest.fixture(scope="module")
def sections() -> dict[str, list[str]]:
    """The lines of entries by the anchor of their section."""
    parts = re.split(r"^## .*\{#(\w+)\}$", component_page(), flags=re.MULTILINE)[1:]
    return {
        slug: [line for line in text.splitlines() if line.startswith("| `")]
        for slug, text in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.mark.parametrize("slug", components())
def test_no_component_is_left_without_words_or_place(slug: str, sections: dict[str, list[str]]) -> None:
    assert [line.split("`")[1] for line in sections[slug]] == list(components()[slug].entries())
    for line in sections[slug]:
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        assert len(cells) == 3
        assert all(cell.strip() for cell in cells), line
        assert " at 0x" not in line, line


def test_a_part_of_the_paper_has_its_section_and_a_peer_is_not_said_to_be_in_it() -> None:
    page = components()["audio_projectors"]
    places = {key: page.place(key, entry) for key, entry in AUDIO_PROJECTORS.items()}
    assert places["conv_gmlp"].startswith("section 3.1 and figure 5")
    assert all(places[peer].startswith(NOT_IN_THE_PAPER) for peer in ("q_former", "conv1d_mlp", "frame_concat_mlp"))
    assert page.place("one of my own", object()).startswith(NOT_IN_THE_PAPER)


def test_a_stage_and_a_benchmark_say_themselves_where_the_paper_has_them() -> None:
    stages, benchmarks = components()["stages"], components()["benchmarks"]
    assert stages.place("audio", PAPER_STAGES["audio"]) == PAPER_STAGES["audio"].paper
    entries = benchmarks.entries()
    assert benchmarks.place("mmlu", entries["mmlu"]) == "table 1, MMLU"
    assert benchmarks.place("amazon_queen", entries["amazon_queen"]) == NOT_IN_THE_PAPER


@dataclass(frozen=True)
class Held:
    size: int
    rates: Mapping[str, float | None]
    label: str = ""


def test_data_is_said_by_the_fields_that_say_something() -> None:
    page = components()["stages"]
    assert page.what("mine", Held(3, {"a": 1e-5, "b": None})) == "size: 3; rates: a 1e-05, b not found"
    assert page.what("mine", (Held(1, {}), Held(2, {}, "bold"))) == "size: 1, size: 2; label: bold"


def test_words_about_an_entry_that_is_not_there_are_refused() -> None:
    page = Components(
        title="Audio projectors",
        module="lab.parts.audio_projectors",
        dict="AUDIO_PROJECTORS",
        places=MappingProxyType({"lost": "section 9"}),
    )
    with pytest.raises(LabError, match=r"speaks of lost, which .*AUDIO_PROJECTORS does not have; it has conv_gmlp"):
        page.entries()
