"""The study of loss filters on pictures: its declaration, the whole path of tiny cells, and its figure's title."""

import dataclasses
import json

import numpy as np
import pytest

from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM
from lab.data.sources import check_source
from lab.paper.claims import load_contrasts
from lab.paper.figures import load_script
from lab.paper.measured import load_measured
from lab.paper.style import paper_style
from lab.study import results
from lab.study.ablation import Rung, load_ablation
from lab.study.store import read_runs
from lab.study.sweep import reproduce
from lab.training.cell import FINE_TUNING, PRETRAINING, cell_stages
from lab.training.named_parts import check_vision_encoder
from lab.training.tuning import ORACLE, check_tuning
from tests.image_text import NAME, tiny_image_text
from tests.paper.answers import REPOSITORY
from tests.vision import write_image_set

VARIED = {"loss_filter", "k", "fitted_by"}


def test_rows_are_those_of_the_study_of_text() -> None:
    pictures, text = load_ablation(NAME), load_ablation("loss_filter")
    assert [(row.key, row.changes) for row in pictures.rows] == [(row.key, row.changes) for row in text.rows]
    assert set(pictures.varied) == VARIED
    assert [column.metric for column in pictures.columns] == [column.metric for column in text.columns]
    compared = [
        [(c.baseline, c.candidate, c.smallest_effect) for c in load_contrasts(n)] for n in (NAME, "loss_filter")
    ]
    assert compared[0] == compared[1]
    assert {pictures.resolve(row.key, "cpu").loss_filter for row in pictures.rows} == {*LOSS_FILTERS, RANDOM, ORACLE}


def test_all_rows_of_every_rung_can_be_and_are_trained_and_tested_alike() -> None:
    ablation = load_ablation(NAME)
    for rung in ablation.rungs:
        cells = [ablation.resolve(row.key, rung.name) for row in ablation.rows]
        assert len({str({n: v for n, v in cell.as_dict().items() if n not in VARIED}) for cell in cells}) == 1
        for cell in cells:
            check_tuning(cell)
            first, second = cell_stages(cell)
            assert first.trained == second.trained
        check_vision_encoder(cells[0].vision_encoder)
        for source in filter(None, (cells[0].images, cells[0].test_source)):
            check_source(source)


def test_the_cut_of_the_cpu_rung_splits_no_group_of_stills() -> None:
    # Groups of four kinds taking turns, of 4, 4, 3 and 2 stills: they all end after the least common multiple, 48.
    assert load_ablation(NAME).base.num_pretraining % 48 == 0


def test_the_paper_gives_no_number_but_how_many_pairs() -> None:
    ablation = load_ablation(NAME)
    assert [reported.value for reported in ablation.reported] == [None]
    assert ablation.resolve("gaussian_1", "paper").num_training == 600_000


def tiny_study(root):
    """The study at a rung of few steps, on a set of pictures in a folder."""
    pictures = f"image_choices@{write_image_set(root / 'pictures', count=24)}"
    sizes = {"num_pretraining": 8, "num_training": 16, "fault_share": 0.25, "num_test": 4}
    ablation = load_ablation(NAME)
    base = ablation.base.as_dict()
    cell = tiny_image_text(root, images=pictures, **sizes).as_dict()
    changes = {name: value for name, value in cell.items() if name not in VARIED and value != base[name]}
    return dataclasses.replace(
        ablation, rungs=(Rung(name="smoke", description="a test's", changes=changes, recorded=False),)
    )


@pytest.mark.slow
def test_cells_are_filtered_trained_measured_tracked_and_drawn(tmp_path, monkeypatch, store_maker) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    store_maker()
    study = tiny_study(tmp_path)
    rows = ["none", "gaussian_1", "oracle"]
    arguments = {"rung": "smoke", "rows": rows, "seeds": [0], "workers": 1}
    outcome = reproduce(study, **arguments)
    assert outcome.failed == {}
    lines = {line["row"]: line for line in results.read_lines(study, "smoke")}
    assert set(lines) == set(rows)
    for column in study.columns:
        assert all(float(line[column.metric]) >= 0 for line in lines.values())
    assert float(lines["none"]["share_removed"]) == 0
    assert [float(lines["oracle"][f"removal_{name}"]) for name in ("precision", "recall")] == [1.0, 1.0]
    assert float(lines["oracle"]["share_removed"]) == pytest.approx(4 / 16)
    table = results.load_utterances(study, "smoke")
    for row in rows:
        own = table[table["row"] == row]
        assert own.groupby("split").size().to_dict() == {"test": 4, "train": 16}
        wrong = own.loc[own["split"] == "test", "wrong_answers"]
        assert float(lines[row]["test_accuracy"]) == pytest.approx(1 - wrong.mean())
    gaussian = table[(table["row"] == "gaussian_1") & (table["split"] == "train")]
    losses = gaussian["loss"].to_numpy()
    assert gaussian["kept"].tolist() == (np.abs(losses - losses.mean()) <= losses.std()).tolist()
    run = next(record for record in read_runs() if record.tags["kind"] == "cell")
    assert all(check["passed"] for check in json.loads(run.artifact("packing_certificate.json").read_text())["checks"])
    assert json.loads(run.artifact("pretrained.json").read_text())["pretrained_on"] == 8
    ancestry = json.loads(run.artifact("ancestry.json").read_text())
    assert [link["stage"] for link in ancestry] == [PRETRAINING, FINE_TUNING]
    with paper_style():
        figure = load_script(REPOSITORY / "figures" / f"{NAME}.py").draw(load_measured(study, "smoke"))
    assert len(figure.axes) == 3
    before = len(read_runs())
    assert reproduce(study, **arguments).complete
    assert len(read_runs()) == before
