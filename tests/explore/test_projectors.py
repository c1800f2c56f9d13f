import dataclasses
import shutil

import numpy as np
import pytest

from lab import paths
from lab.errors import LabError
from lab.explore.projectors import StudiedCells, projectors_panel
from lab.study.ablation import Rung, load_ablation
from lab.study.sweep import reproduce
from tests.speech import tiny_parameters, write_corpus


def test_a_study_that_was_not_run_is_refused():
    with pytest.raises(LabError, match="there are no results of 'conv_gmlp_rate' at rung 'smoke'"):
        StudiedCells(load_ablation("conv_gmlp_rate"), "smoke")


@pytest.mark.slow
def test_an_utterance_is_heard_through_the_trained_projector_of_each_row(tmp_path, monkeypatch, store_maker):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    store_maker()
    changes = tiny_parameters(tmp_path) | {"out_of_domain_corpus": write_corpus(tmp_path / "elsewhere", held_out=2)}
    rung = Rung(name="tiny", description="a test's", changes=changes, recorded=False)
    study = dataclasses.replace(load_ablation("conv_gmlp_rate"), rungs=(rung,))
    rows = ["conv_gmlp_2", "conv_gmlp_4", "mean_pool_mlp_2"]
    outcome = reproduce(study, rung="tiny", rows=rows, seeds=[0], workers=1)
    assert outcome.failed == {}
    cells = StudiedCells(study, "tiny")
    assert cells.rows == rows
    corpus, elsewhere = cells.tests
    utterance, later = list(cells.tests[corpus])[:2]
    wide, narrow = (cells.heard(row, corpus, utterance) for row in ("conv_gmlp_4", "conv_gmlp_2"))
    assert (wide.downsample_rate, narrow.downsample_rate) == (4, 2)
    np.testing.assert_array_equal(wide.features, narrow.features)
    assert len(narrow.tokens) == -(-len(narrow.features) // 2)
    assert len(wide.tokens) == -(-len(wide.features) // 4)
    panel = projectors_panel(cells)
    assert panel.error == ""
    sound, errors, figure, costs = panel.shown
    assert f"<p>{cells.tests[corpus][utterance].answer}</p>" in sound
    assert "REF: " in errors
    assert f"{len(narrow.tokens)} tokens, 2 frames each" in figure.axes[3].get_title(loc="left")
    panel.controls["rate"].value = 4
    assert f"{len(wide.tokens)} tokens, 4 frames each" in panel.shown[2].axes[3].get_title(loc="left")
    assert "Conv-GMLP" in costs
    panel.controls["utterance"].value = later
    shown = []
    panel._below.observe(lambda change: shown.append(change["new"]), names="children")
    panel.controls["corpus"].value = elsewhere
    assert panel.controls["utterance"].value == next(iter(cells.tests[elsewhere]))
    assert len(panel.controls["utterance"].options) == len(cells.tests[elsewhere]) == 2
    assert len(shown) == 1  # although two controls have changed
    panel.controls["projector"].value = "Mean pooling + MLP"
    assert panel.error == "Mean pooling + MLP was run at n = 2 with seed 0, and not at 4"
    panel.controls["rate"].value = 2
    assert panel.error == ""
    with pytest.raises(LabError, match=r"unknown test utterance of hub:.*'none of it'"):
        cells.heard("conv_gmlp_2", corpus, "none of it")
    panel.controls["projector"].value, panel.controls["rate"].value = "Conv-GMLP", 4
    with pytest.raises(LabError, match=r"seed 7 of 'conv_gmlp_rate' was not run at rung 'tiny'"):
        StudiedCells(study, "tiny", seed=7)
    for path in paths.mlruns_dir().glob("artifacts/*/artifacts/model"):
        shutil.rmtree(path)
    panel.controls["rate"].value = 2
    assert "row 'conv_gmlp_2' has no weights here" in panel.error
