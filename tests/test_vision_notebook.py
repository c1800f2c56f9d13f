"""The whole path of tiny vision cells: preparing, papermill, kernel, training, MLflow, results file, table."""

import dataclasses
import json

import pytest

from lab import paths
from lab.study import results
from lab.study.ablation import Rung, load_ablation
from lab.study.store import read_runs
from lab.study.sweep import reproduce
from tests.vision import tiny_parameters, write_image_set, write_video_set


def tiny_study(name, root, *, packed):
    """A study at a rung whose pictures and videos are folders of the hub's form."""
    pictures = f"image_choices@{write_image_set(root / 'pictures')}"
    changes = {**tiny_parameters(root), "images": pictures, "num_images": 8, "num_test": 4, "measure_dev": False}
    changes |= {"packed": True, "batch_size": 0} if packed else {}
    if name.startswith("video_"):
        changes |= {"videos": f"next_qa@{write_video_set(root / 'videos')}", "num_videos": 4}
    else:
        del changes["num_videos"]
    ablation = load_ablation(name)
    varied = {parameter for row in ablation.rows for parameter in row.changes}
    rung = Rung(
        name="smoke",
        description="a test's",
        changes={name: value for name, value in changes.items() if name not in varied},
        recorded=False,
    )
    return dataclasses.replace(ablation, rungs=(rung,))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "row", "stages", "packed"),
    [
        ("video_pretraining", "staged", ["staged_1", "staged_2"], True),
        ("visual_projector", "mean_pool", ["image_1"], False),
    ],
)
def test_one_cell_is_trained_measured_tracked_and_not_run_again(
    tmp_path, monkeypatch, store_maker, name, row, stages, packed
):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    store_maker()
    study = tiny_study(name, tmp_path, packed=packed)
    outcome = reproduce(study, rung="smoke", rows=[row], seeds=[0], workers=1)
    assert outcome.failed == {}
    assert outcome.complete
    (line,) = results.read_lines(study, "smoke")
    table = results.load_utterances(study, "smoke")
    assert set(table["split"]) == {"test"}
    assert len(table) == 4
    assert float(line["test_accuracy"]) == pytest.approx(1 - table["wrong_answers"].mean())
    assert float(line["test_loss"]) == pytest.approx(table["loss"].sum() / table["num_tokens"].sum())
    # A batch holds about 600 tokens, in each of five steps.
    cell = study.resolve(row, "smoke")
    assert 0 < float(line["lm_tokens"]) < 1.5 * cell.steps * cell.batch_tokens
    for column in study.columns:
        assert float(line[column.metric]) >= 0
    (record,) = [record for record in read_runs() if record.status == "FINISHED" and record.tags["kind"] == "cell"]
    ancestry = json.loads(record.artifact("ancestry.json").read_text(encoding="utf-8"))
    assert [link["stage"] for link in ancestry] == stages
    assert [link["parents"] for link in ancestry[1:]] == [[link["sha256"]] for link in ancestry[:-1]]
    assert record.artifact("packing_certificate.json").exists() == packed
    if packed:
        certificates = json.loads(record.artifact("packing_certificate.json").read_text(encoding="utf-8"))
        assert {one["packing_certificate"] for one in certificates} == {"passed"}
        assert [(one["stage"], one["kind"]) for one in certificates] == [
            ("staged_1", "image_text"),
            ("staged_2", "image_text"),
            ("staged_2", "video_text"),
        ]
        assert float(line["padding_share"]) == 0
    (executed,) = paths.mlruns_dir().rglob(f"notebooks/{name}/*.ipynb")
    assert executed.stat().st_size > 1000
    assert not list(paths.mlruns_dir().rglob("checkpoints/*.safetensors"))
    before = [record.run_id for record in read_runs()]
    assert reproduce(study, rung="smoke", rows=[row], seeds=[0], workers=1).complete
    assert [record.run_id for record in read_runs()] == before
