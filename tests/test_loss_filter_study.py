"""The study of loss filters: its declaration, the whole path of tiny cells, and its figure from their results."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lab import paths
from lab.data.filters.loss_filters import LOSS_FILTERS, RANDOM
from lab.paper.claims import load_contrasts
from lab.paper.figures import load_script
from lab.paper.measured import load_measured
from lab.paper.style import paper_style
from lab.study import results
from lab.study.ablation import Rung, load_ablation
from lab.study.store import read_runs
from lab.study.sweep import reproduce
from lab.training.tuning import ORACLE, check_tuning
from tests.paper.answers import REPOSITORY, write_study
from tests.training.instructions import talks, tiny_model

NAME = "loss_filter"
VARIED = {"loss_filter", "k", "fitted_by"}


def test_rows_differ_in_the_filter_and_its_k_alone_and_every_filter_has_one() -> None:
    ablation = load_ablation(NAME)
    assert set(ablation.varied) == VARIED
    cells = [ablation.resolve(row.key, "cpu") for row in ablation.rows]
    assert {cell.loss_filter for cell in cells} == {*LOSS_FILTERS, RANDOM, ORACLE}
    of_all = [cell for cell in cells if cell.fitted_by == "corpus"]
    assert sorted(cell.k for cell in of_all if cell.loss_filter == "gaussian") == [0.5, 1.0, 1.5, 2.0, 3.0]
    for cell in cells:
        check_tuning(cell)


def test_random_is_of_the_papers_filters_size() -> None:
    ablation = load_ablation(NAME)
    assert ablation.resolve("random", "cpu").k == ablation.resolve("gaussian_1", "cpu").k == 1.0


def test_all_rows_of_a_rung_are_trained_and_tested_alike() -> None:
    ablation = load_ablation(NAME)
    for rung in ablation.rungs:
        alike = [
            {
                n: v
                for n, v in ablation.resolve(row.key, rung.name).as_dict().items()
                if n not in ("loss_filter", "k", "fitted_by")
            }
            for row in ablation.rows
        ]
        assert all(cell == alike[0] for cell in alike)
        assert alike[0]["max_tokens"] <= alike[0]["budget_tokens"]


def test_the_claim_is_the_papers_filter_against_none_and_against_chance_of_the_same_size() -> None:
    contrasts = load_contrasts(NAME)
    assert [(c.baseline, c.candidate) for c in contrasts[:2]] == [("none", "gaussian_1"), ("random", "gaussian_1")]
    assert {c.smallest_effect for c in contrasts} == {0.02}
    main = {row.key for row in load_ablation(NAME).rows if row.main}
    assert all({c.baseline, c.candidate} <= main for c in contrasts)


def test_the_paper_gives_no_number() -> None:
    assert [reported.value for reported in load_ablation(NAME).reported] == [None]


def test_the_papers_rung_has_its_number_of_pairs() -> None:
    assert load_ablation(NAME).resolve("gaussian_1", "paper").num_training == 600_000


def tiny_study(model: str):
    """The study at a rung of few steps, whose language model is a folder."""
    ablation = load_ablation(NAME)
    smoke = ablation.rung("smoke").changes
    changes = {**smoke, "num_training": 60, "num_test": 8, "steps": 2, "scorer": model, "language_model": model}
    tiny = {"budget_tokens": 400, "precision": "float32", "device": "cpu"}
    rung = Rung(name="smoke", description="a test's", changes={**changes, **tiny}, recorded=False)
    return dataclasses.replace(ablation, rungs=(rung,))


@pytest.mark.slow
def test_cells_are_filtered_trained_measured_tracked_and_drawn(tmp_path, store_maker) -> None:
    store_maker()
    talks()
    folder = tmp_path / "model"
    tiny_model().model.save_pretrained(folder)
    described = {"alphabet": tiny_model().codec.alphabet, "frames_per_token": 4}
    (folder / "characters.json").write_text(json.dumps(described))
    study = tiny_study(str(folder))
    rows = ["none", "gaussian_1", "gaussian_by_source", "oracle"]
    arguments = {"rung": "smoke", "rows": rows, "seeds": [0], "workers": 1}
    outcome = reproduce(study, **arguments)
    assert outcome.failed == {}
    lines = {line["row"]: line for line in results.read_lines(study, "smoke")}
    assert set(lines) == set(rows)
    for column in study.columns:
        assert all(float(line[column.metric]) >= 0 for line in lines.values())
    assert float(lines["none"]["share_removed"]) == 0
    oracle = lines["oracle"]
    assert [float(oracle[f"removal_{name}"]) for name in ("precision", "recall")] == [1.0, 1.0]
    assert float(oracle["share_removed"]) == pytest.approx(18 / 60)
    table = results.load_utterances(study, "smoke")
    for row in rows:
        own = table[table["row"] == row]
        assert len(own[own["split"] == "test"]) == 8
        assert len(own[own["split"] == "train"]) == 60
        wrong = own.loc[own["split"] == "test", "wrong_answers"]
        assert float(lines[row]["test_accuracy"]) == pytest.approx(1 - wrong.mean())
    gaussian = table[(table["row"] == "gaussian_1") & (table["split"] == "train")]
    losses = gaussian["loss"].to_numpy()
    assert gaussian["kept"].tolist() == (np.abs(losses - losses.mean()) <= losses.std()).tolist()
    run = next(record for record in read_runs() if record.tags["kind"] == "cell")
    assert all(check["passed"] for check in json.loads(run.artifact("packing_certificate.json").read_text())["checks"])
    before = len(read_runs())
    assert reproduce(study, **arguments).complete
    assert len(read_runs()) == before


def measured(checkout, monkeypatch, rows=("none", "gaussian_1", "oracle")):
    """Made-up results with the losses of 300 training instructions."""
    monkeypatch.setattr(paths, "repository_root", lambda: checkout)
    write_study(checkout, NAME)
    ablation = load_ablation(NAME)
    rng = np.random.default_rng(0)
    losses = rng.gamma(4, 0.5, 300)
    lines = []
    for number, row in enumerate(rows):
        run_id = f"{row.replace('_', '')}{number}".ljust(32, "0")
        test = pd.DataFrame(
            {
                "id": [f"q{n}" for n in range(60)],
                "group": [f"g{n // 2}" for n in range(60)],
                "task": "plurals",
                "wrong_answers": rng.binomial(1, 0.4, 60),
                "num_questions": 1,
                "num_choices": 4,
                "split": "test",
                "source": "bigbench",
            }
        )
        train = pd.DataFrame({"id": [f"i{n}" for n in range(300)], "loss": losses, "split": "train"})
        kinds = np.resize(["clean", "clean", "swapped", "repeated_prompt", "other_answer"], 300)
        table = pd.concat([test, train.assign(fault=kinds, kept=True, source="bigbench")], ignore_index=True)
        path = paths.mlruns_dir() / "artifacts" / run_id / "artifacts" / "utterances.parquet"
        path.parent.mkdir(parents=True)
        table.to_parquet(path)
        own = {"row": row, "rung": "cpu", "seed": "0", "key": "0" * 16, "run_id": run_id}
        varied = {name: str(getattr(ablation.resolve(row, "cpu"), name)) for name in ablation.varied}
        accuracy = repr(float(1 - test["wrong_answers"].mean()))
        lines.append({**own, **varied, "test_accuracy": accuracy, "test_chance": "0.25"})
    results._write(ablation, "cpu", lines)
    return load_measured(ablation, "cpu"), losses


def test_the_figure_shows_the_losses_the_fit_and_what_is_dropped_on_both_sides(tmp_path, monkeypatch) -> None:
    found, losses = measured(tmp_path, monkeypatch)
    with paper_style():
        figure = load_script(REPOSITORY / "figures" / f"{NAME}.py").draw(found)
        FigureCanvasAgg(figure).draw()
    scores, every, by_kind = figure.axes
    assert len(scores.get_yticklabels()) == 3
    low, high = losses.mean() - losses.std(), losses.mean() + losses.std()
    counts = [sum(int(bar.get_height()) for bar in bars) for bars in every.containers]
    below, above = int((losses < low).sum()), int((losses > high).sum())
    assert counts == [300 - below - above, below, above]
    bounds = [line.get_xdata()[0] for line in every.lines if line.get_xdata()[0] == line.get_xdata()[-1]]
    assert bounds == pytest.approx([low, high])
    fitted = next(line for line in every.lines if len(line.get_xdata()) > 2)
    at, height = np.array(fitted.get_xdata()), np.array(fitted.get_ydata())
    assert at[height.argmax()] == pytest.approx(losses.mean(), abs=0.05)
    # The curve holds as many instructions as the histogram, but for its tails.
    width = every.containers[0][0].get_width()
    assert np.trapezoid(height, at) / width == pytest.approx(300, rel=0.05)
    said = [text.get_text() for text in by_kind.get_legend().get_texts()]
    assert said == ["clean (120)", "other answer (60)", "repeated prompt (60)", "swapped (60)"]


def test_without_the_papers_row_the_scores_are_drawn_alone(tmp_path, monkeypatch) -> None:
    found, _ = measured(tmp_path, monkeypatch, rows=("none", "oracle"))
    with paper_style():
        assert len(load_script(REPOSITORY / "figures" / f"{NAME}.py").draw(found).axes) == 1
