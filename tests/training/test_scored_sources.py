import json

import pyarrow.parquet as pq
import pytest

from lab.data.filters.loss_filters import SUMMARY
from lab.errors import LabError
from lab.training.scored_sources import score_source
from lab.training.scoring import ScoringOptions
from lab.training.tuning import picture_tuning
from tests.image_text import tiny_image_text
from tests.vision import draw_stand_ins, write_image_set


@pytest.fixture
def cell(tmp_path, monkeypatch):
    draw_stand_ins(tmp_path / "things", monkeypatch)
    return tiny_image_text(tmp_path, fault_share=0.0)


def scored(folder):
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_the_studys_own_pictures_have_the_losses_that_the_study_has_of_clean_ones(cell, tmp_path):
    said = []
    scoring = ScoringOptions(without_prompt=True, precision="float32")
    options = {"options": scoring, "device": "cpu", "say": said.append}
    score_source("stills", tmp_path / "s", model=cell, limit=5, **options)
    rows = scored(tmp_path / "s")
    data = picture_tuning(cell)
    assert [row["id"] for row in rows] == data.train.ids[:5]
    assert [row["loss"] for row in rows] == pytest.approx(data.losses.losses[:5].tolist(), rel=1e-4)
    assert all(row["loss_without_prompt"] > 0 for row in rows)
    assert said[0].startswith("pretrained model: step 3 of 3, loss ")
    assert "5 examples scored by image_text_pretraining of stills" in said[-3]
    assert "0 of 1 parts were there" in said[-3]
    assert said[-2] == "left out: none"
    assert "from the Gaussian" in said[-1]
    score_source("stills", tmp_path / "s", model=cell, limit=5, **options)
    assert "1 of 1 parts were there" in said[-3]


def test_another_source_is_scored_from_its_first_picture(cell, tmp_path):
    pictures = f"image_choices@{write_image_set(tmp_path / 'set')}"
    scoring = ScoringOptions(precision="float32")
    score_source(pictures, tmp_path / "s", model=cell, limit=4, options=scoring, device="cpu", say=len)
    assert len(scored(tmp_path / "s")) == 4
    assert all(row["loss_without_prompt"] is None for row in scored(tmp_path / "s"))
    assert json.loads((tmp_path / "s" / SUMMARY).read_text())["num_scored"] == 4


def test_what_cannot_be_scored_is_refused_before_anything_is_made(cell, tmp_path):
    with pytest.raises(LabError, match=r"unknown source of samples 'chatterbot' .*; choose one of: built, charts"):
        score_source("chatterbot", tmp_path, model=cell)
    with pytest.raises(LabError, match="limit is 0; expected at least 1, or none for all"):
        score_source("stills", tmp_path, model=cell, limit=0)
    for source in ("stills", "scenes:8-12", "conversation@hub:a/b"):
        with pytest.raises(LabError, match=f"source '{source}' is of pictures or video, which a language model cannot"):
            score_source(source, tmp_path, model="character")


def test_a_file_that_is_no_table_is_named_as_such(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    with pytest.raises(LabError, match=r"rows.jsonl is no Parquet table; expected a file that ends with .parquet"):
        score_source(str(rows), tmp_path, model="character")
