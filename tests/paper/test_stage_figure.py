"""Figures, columns and comparisons of a study with several tests, from made-up results."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lab.errors import LabError
from lab.paper.claims import Comparison
from lab.paper.figures import load_script
from lab.paper.measured import Measured
from lab.paper.row_figure import row_scores
from lab.paper.style import paper_style
from lab.study.ablation import load_ablation
from lab.training.stages import PAPER_STAGES
from tests.paper.answers import REPOSITORY

RIGHT = {"pictures": 0.8, "spoken": 0.6, "video": 0.45}


def measured(name: str, *, better: float = 0.0) -> Measured:
    """Every row answers alike but the first, which is `better` at spoken questions."""
    ablation = load_ablation(name)
    tests = dict.fromkeys(column.test for column in ablation.columns if column.test)
    lines, items = [], []
    for at, row in enumerate(ablation.rows):
        for seed in range(3):
            rng = np.random.default_rng([at, seed])
            line = {"row": row.key, "seed": seed}
            for test in tests:
                right = RIGHT.get(test, 0.3) + better * (at == 0 and test == "spoken")
                wrong = (rng.random(200) > right).astype(int)
                facts = {"row": row.key, "seed": seed, "test": test, "split": "test", "source": "made-up"}
                for n, one in enumerate(wrong):
                    counted = {"character_errors": one, "num_characters": 1, "word_errors": one, "num_words": 1}
                    items.append(
                        {**facts, "id": f"{test}{n}", "group": f"g{n}", "wrong_answers": one, "num_questions": 1}
                        | counted
                    )
                line |= {f"{test}_accuracy": 1 - wrong.mean(), f"{test}_chance": 0.33}
                line[f"{test}_character_error_rate"] = wrong.mean()
                for stage in PAPER_STAGES:
                    line[f"after_{stage}_{test}_accuracy"] = right
                    line[f"after_{stage}_{test}_character_error_rate"] = 1 - right
            lines.append(line)
    return Measured(
        ablation=ablation,
        rung="cpu",
        results=pd.DataFrame(lines),
        utterances=pd.DataFrame(items),
        corpora=("made-up",),
        other_corpora=(),
    )


@pytest.mark.parametrize("name", ["baichuan_omni", "omni_alignment", "sft"])
def test_every_test_has_a_panel_with_every_row(name):
    found = measured(name)
    shown = [column for column in found.ablation.columns if column.test]
    with paper_style():
        figure = load_script(REPOSITORY / "figures" / f"{name}.py").draw(found)
        FigureCanvasAgg(figure).draw()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left").partition("\n")[0] for axes in panels] == [column.label for column in shown]
    for axes in panels:
        assert len(axes.lines) >= len(found.ablation.rows)


def test_a_column_of_one_test_has_the_interval_of_its_items_alone():
    found = measured("omni_alignment")
    for column in found.ablation.columns:
        if column.test in RIGHT:
            score = row_scores(found, column)[0]
            assert score.low < score.mean < score.high
            assert score.mean == pytest.approx(100 * RIGHT[column.test], abs=6)


def test_a_comparison_of_one_test_sees_its_items_alone():
    asked = {"baseline": "branches", "candidate": "joint"}
    found = measured("omni_alignment", better=0.3).utterances
    spoken = Comparison(**asked, test="spoken").effect(found)
    pictures = Comparison(**asked, test="pictures").effect(found)
    assert spoken.effect.estimate == pytest.approx(0.3, abs=0.08)
    assert abs(pictures.effect.estimate) < 0.08
    with pytest.raises(LabError):
        Comparison(**asked, test="music").effect(found)
    assert Comparison(**asked).data(found) != Comparison(**asked, test="spoken").data(found)
