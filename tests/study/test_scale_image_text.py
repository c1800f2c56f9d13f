import pytest

from lab.errors import LabError
from lab.study.ablation import load_ablation
from lab.study.scale import scale
from tests.study.test_scale_vision import MEAN_POOL, nothing_is_fetched  # noqa: F401  a fixture

STUDY = "loss_filter_images"


@pytest.mark.slow
def test_a_pack_trains_projector_and_language_model_and_has_the_budgets_positions():
    memory = scale(load_ablation(STUDY), "paper", ["gaussian_1"]).rows["gaussian_1"].memory
    encoder, visual, video, language_model = memory.parts
    assert (encoder.weights, visual.trained_parameters, video.trained_parameters) == (0, MEAN_POOL, 0)
    assert language_model.trained_parameters == 7_615_616_512
    assert memory.tokens == 169 + 64 + 1 + 128 + 1
    assert memory.batch_size == round(65_536 / memory.tokens)


def test_the_filters_of_a_rung_take_the_same_and_the_table_says_what_scoring_takes():
    found = scale(load_ablation(STUDY), "cpu")
    assert len({row.dearest for row in found.rows.values()}) == 1
    assert found.scoring.startswith("Scoring before it: the same model (")
    assert "in packs of 800 tokens." in found.scoring


def test_the_small_rung_counts_the_models_of_the_project():
    found = scale(load_ablation(STUDY), "cpu", ["none"], question_tokens=40, answer_tokens=20)
    assert found.rows["none"].memory.tokens == 9 + 40 + 1 + 20 + 1  # 6 x 6 patches pooled by two


def test_a_batch_of_samples_is_refused_and_a_sample_longer_than_a_pack():
    with pytest.raises(LabError, match="batch_size is 4, but a study of packed instructions has none"):
        scale(load_ablation(STUDY), "paper", batch_size=4)
    with pytest.raises(LabError, match=r"row 'none'.*more than the 65536 of a pack"):
        scale(load_ablation(STUDY), "paper", ["none"], answer_tokens=70_000)
