from dataclasses import FrozenInstanceError, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.study.ablation import (
    Ablation,
    Column,
    Reported,
    Row,
    Rung,
    Trial,
    cells,
    load_ablation,
    load_module,
    notebook_path,
    typed,
)
from lab.training.parameters import Parameters


@dataclass(frozen=True, kw_only=True)
class ToyParameters(Parameters):
    size: int = 1
    noise: float = 0.5
    steps: int = 100


def make(**changes: Any) -> Ablation:
    declared: dict[str, Any] = {
        "name": "toy",
        "paper": "Table 0",
        "claim": "Larger is better.",
        "notebook": "toy",
        "seeds": (0, 1),
        "base": ToyParameters(),
        "rungs": (Rung(name="cpu", description=""), Rung(name="smoke", description="", changes={"steps": 2})),
        "rows": (
            Row(key="small", label="Small", changes={}),
            Row(key="large", label="Large", changes={"size": 4}),
            Row(key="noisy", label="Noisy", changes={"noise": 2.0}, main=False),
        ),
        "columns": (Column(metric="error", label="Error", unit="", better="lower"),),
    }
    return Ablation(**{**declared, **changes})


def test_a_parameter_comes_from_the_row_then_the_rung_then_base() -> None:
    assert make().resolve("large", "smoke") == ToyParameters(size=4, steps=2)


def test_a_row_that_changes_what_a_rung_changes_is_refused() -> None:
    with pytest.raises(LabError, match="row 'long' and rung 'smoke' of 'toy' both change steps"):
        make(rows=(Row(key="long", label="Long", changes={"steps": 9}),))


def test_a_rung_may_have_a_base_of_its_own_which_rows_overrule() -> None:
    large = Rung(name="paper", description="", base={"size": 3}, changes={"steps": 7})
    declared = make(rungs=(Rung(name="cpu", description=""), large))
    assert declared.resolve("small", "paper", 5) == ToyParameters(size=3, steps=7, seed=5)
    assert declared.resolve("large", "paper") == ToyParameters(size=4, steps=7)
    assert declared.resolve("small", "cpu").size == 1
    with pytest.raises(LabError, match="rung 'paper' has size in `changes` and in `base`"):
        Rung(name="paper", description="", base={"size": 3}, changes={"size": 4})
    with pytest.raises(LabError, match="unknown parameter in rung 'paper' of 'toy': 'sizes'"):
        make(rungs=(Rung(name="paper", description="", base={"sizes": 3}),))


def test_a_row_or_rung_that_names_no_parameter_of_base_is_refused() -> None:
    with pytest.raises(LabError, match=r"unknown parameter in row 'large' of 'toy': 'sise' .did you mean 'size'"):
        make(rows=(Row(key="large", label="Large", changes={"sise": 4}),))
    with pytest.raises(LabError, match="unknown parameter in rung 'cpu' of 'toy': 'step'"):
        make(rungs=(Rung(name="cpu", description="", changes={"step": 4}),))


def test_a_trial_names_parameters_of_base_and_two_amounts_of_work() -> None:
    assert make(trial=Trial(parameter="steps", values=(1, 5), changes={"noise": 0.0})).trial is not None
    with pytest.raises(LabError, match=r"unknown parameter in the trial of 'toy': 'step' .did you mean 'steps'"):
        make(trial=Trial(parameter="step", values=(1, 5)))
    with pytest.raises(LabError, match="unknown parameter in the trial of 'toy': 'warmup'"):
        make(trial=Trial(parameter="steps", values=(1, 5), changes={"warmup": 0}))
    for values in ((5, 1), (2, 2), (0, 5)):
        with pytest.raises(LabError, match="the values of a trial are two, above 0 and the smaller first; got"):
            Trial(parameter="steps", values=values)


def test_two_rows_with_the_same_parameters_are_refused() -> None:
    rows = (Row(key="small", label="Small", changes={}), Row(key="one", label="One", changes={"size": 1}))
    with pytest.raises(LabError, match="rows 'small' and 'one' of 'toy' have the same parameters at rung 'cpu'"):
        make(rows=rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ()}, "has no seed"),
        ({"seeds": (1, 1)}, "the seed 1 twice"),
        ({"name": "To y"}, "'To y' in ablation 'To y' is not a key"),
        (
            {"rungs": (Rung(name="cpu", description="", changes={"seed": 1}),)},
            "unknown parameter in rung 'cpu' of 'toy': 'seed'",
        ),
        (
            {"rows": (Row(key="large", label="Large", changes={"size": "4"}),)},
            r"row 'large' of 'toy': size is '4' .str.; expected int",
        ),
        ({"golden": {"noise": True}}, r"`golden` of 'toy': noise is True .bool.; expected float"),
        (
            {"reported": (Reported(row="smal", metric="error", value=1.0, source="primary"),)},
            "row in `reported` of 'toy': 'smal' .did you mean 'small'",
        ),
    ],
)
def test_a_declaration_that_cannot_be_run_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        make(**changes)


def test_a_declaration_cannot_be_changed() -> None:
    ablation = make()
    with pytest.raises(FrozenInstanceError):
        ablation.rows = ()  # type: ignore[misc]
    assert replace(ablation, seeds=(7,)).seeds == (7,)


def test_the_varied_parameters_are_those_that_any_row_changes() -> None:
    assert make().varied == ("size", "noise")


def test_cells_are_rows_times_seeds_and_the_seed_is_added_last() -> None:
    chosen = cells(make(), "cpu")
    assert [(cell.row, cell.seed) for cell in chosen] == [("small", 0), ("small", 1), ("large", 0), ("large", 1)]
    assert list(chosen[3].parameters.items()) == [("size", 4), ("noise", 0.5), ("steps", 100), ("seed", 1)]
    assert typed(make(), chosen)[3] == ToyParameters(size=4, seed=1)
    assert len(cells(make(), "cpu", "all")) == 6
    assert [(cell.row, cell.seed) for cell in cells(make(), "cpu", ["noisy"], [5])] == [("noisy", 5)]


def test_unknown_rows_rungs_and_seeds_name_the_choices() -> None:
    with pytest.raises(LabError, match=r"rung of 'toy': 'cpus' \(did you mean 'cpu'\?\); choose one of: cpu, smoke"):
        cells(make(), "cpus")
    with pytest.raises(LabError, match=r"'lage' \(did you mean 'large'\?\); choose one of: large, noisy, small"):
        cells(make(), "cpu", ["lage"])
    with pytest.raises(LabError, match="whole numbers from 0"):
        cells(make(), "cpu", seeds=[-1])
    with pytest.raises(LabError, match="a seed is given twice: 1, 1"):
        cells(make(), "cpu", seeds=[1, 1])
    with pytest.raises(LabError, match="no cell of 'toy' is chosen"):
        cells(make(), "cpu", rows=[])


def test_an_ablation_is_loaded_by_the_name_of_its_file(toy_project: Path) -> None:
    assert load_ablation("toy").claim == "A toy's error falls with its size."
    assert load_module("toy").prepare([])["corpus"] == "c0ffee"
    with pytest.raises(LabError, match=r"unknown ablation 'toys' \(did you mean 'toy'\?\); choose one of: toy"):
        load_ablation("toys")


def test_a_file_that_declares_no_ablation_of_its_name_is_refused(toy_project: Path) -> None:
    (toy_project / "ablations" / "empty.py").write_text("")
    with pytest.raises(LabError, match=r"ablations/empty.py declares no `ablation"):
        load_ablation("empty")
    (toy_project / "ablations" / "other.py").write_text((toy_project / "ablations" / "toy.py").read_text())
    with pytest.raises(LabError, match="declares the ablation 'toy'; one stem names both"):
        load_ablation("other")


def test_a_missing_notebook_names_those_there_are(toy_project: Path) -> None:
    with pytest.raises(LabError, match="unknown notebook 'gone'; choose one of: toy"):
        notebook_path(replace(load_ablation("toy"), notebook="gone"))
