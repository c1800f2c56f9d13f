from dataclasses import replace

import pytest

from lab.data.normalizers import NORMALIZERS
from lab.data.sources import check_source
from lab.paper.claims import load_contrasts
from lab.parts.audio_projectors import AUDIO_PROJECTORS
from lab.parts.visual_projectors import VISUAL_PROJECTORS
from lab.paths import repository_root
from lab.study.ablation import cells, load_ablation, notebook_path
from lab.study.parameters import cell_source, check_notebook, parameters_cell, read_notebook
from lab.training.cell import CURRICULA, IMAGE, VIDEO, cell_audio_projector, cell_kinds, cell_stages
from lab.training.named_parts import check_vision_encoder
from lab.training.stages import PAPER_STAGES

NAMES = sorted(path.stem for path in (repository_root() / "ablations").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_cell_of_its_notebook_is_what_its_kind_of_study_prints(name):
    ablation = load_ablation(name)
    notebook = notebook_path(ablation)
    check_notebook(notebook, type(ablation.base))
    (tagged,) = (cell for cell in read_notebook(notebook)["cells"] if "parameters" in cell["metadata"].get("tags", ()))
    assert cell_source(tagged) == parameters_cell(type(ablation.base)), "write it: python -m lab.study.parameters"


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_run_shows_what_its_row_does(name):
    ablation = load_ablation(name)
    assert not ablation.golden.keys() & set(ablation.varied)


@pytest.mark.parametrize("name", NAMES)
def test_reported_numbers_are_marked_with_their_source(name):
    for reported in load_ablation(name).reported:
        assert reported.source
        assert (reported.value is None) == (reported.source == "not found")


def test_the_rate_study_has_the_papers_numbers_and_none_for_pooling():
    reported = {r.row: r.value for r in load_ablation("conv_gmlp_rate").reported}
    assert {row: value for row, value in reported.items() if value is not None} == {
        "conv_gmlp_2": 0.077,
        "conv_gmlp_4": 0.083,
        "conv_gmlp_8": 0.080,
    }
    assert {row for row, value in reported.items() if value is None} == {f"mean_pool_mlp_{n}" for n in (2, 4, 8)}


def test_the_main_study_is_nine_rows_by_three_seeds():
    main = cells(load_ablation("conv_gmlp_rate"), "cpu")
    assert len(main) == 27
    assert {(c.parameters["projector"], c.parameters["downsample_rate"]) for c in main} == {
        (projector, rate) for projector in ("conv_gmlp", "mean_pool_mlp", "mean_pool_gmlp") for rate in (2, 4, 8)
    }


def test_rows_differ_in_the_projector_alone():
    ablation = load_ablation("conv_gmlp_rate")
    assert set(ablation.varied) == {"projector", "downsample_rate", "parameter_budget"}


def test_every_row_names_a_projector_that_can_be_built_and_contrasts_name_rows():
    ablation = load_ablation("conv_gmlp_rate")
    sizes = {}
    for row in ablation.rows:
        parameters = ablation.resolve(row.key, "cpu")
        assert parameters.normalizer in NORMALIZERS
        projector = cell_audio_projector(parameters, hidden_size=384, output_size=192)
        sizes[row.key] = sum(parameter.numel() for parameter in projector.parameters())
    for rate in (2, 4, 8):
        assert sizes[f"mean_pool_gmlp_{rate}"] == pytest.approx(sizes[f"conv_gmlp_{rate}"], rel=0.005)
    for rate in (4, 8):
        assert sizes[f"conv_gmlp_budget_{rate}"] == pytest.approx(sizes["conv_gmlp_2"], rel=0.01)
    for contrast in load_contrasts("conv_gmlp_rate"):
        assert {contrast.baseline, contrast.candidate} <= AUDIO_PROJECTORS.keys()


VISION = ("video_pretraining", "video_frames", "anyres", "visual_encoder", "visual_projector")


def shown_in_percent(name):
    """What a study says the paper reports, in percent, by row; a list, as a row may have several."""
    values = {}
    for reported in load_ablation(name).reported:
        assert reported.metric == "test_accuracy"
        values.setdefault(reported.row, []).append(None if reported.value is None else round(100 * reported.value, 4))
    return values


def test_the_video_studies_have_the_three_numbers_of_table_10_and_none_else():
    assert shown_in_percent("video_pretraining") == {"staged": [54.7], "direct": [49.1]}
    assert shown_in_percent("video_frames") == {
        "anyres_48": [59.2],
        **{f"frames_{frames}": [None] for frames in (8, 16, 32, 48)},
    }
    studies = ("video_pretraining", "video_frames")
    notes = {reported.row: reported.note for name in studies for reported in load_ablation(name).reported}
    assert "fixed 384 px, 64 frames" in notes["staged"]
    assert "AnyRes, 48 frames" in notes["anyres_48"]


def test_the_anyres_study_has_the_numbers_of_table_9_each_with_its_benchmark():
    assert shown_in_percent("anyres") == {"fixed": [72.61, 47.54, 76.92], "anyres": [87.48, 62.80, 78.44]}
    for row in ("fixed", "anyres"):
        notes = [reported.note for reported in load_ablation("anyres").reported if reported.row == row]
        assert notes == ["DocVQA", "InfographicVQA", "OCRBench"]


def test_the_encoder_study_has_siglips_average_of_table_8():
    assert shown_in_percent("visual_encoder") == {"siglip_so400m": [43.80]}
    (reported,) = load_ablation("visual_encoder").reported
    assert "InternViT-6B: 29.99" in reported.note


def test_the_projector_study_has_no_number_as_the_paper_gives_the_order_alone():
    assert shown_in_percent("visual_projector") == {name: [None] for name in VISUAL_PROJECTORS}


VARIED = {
    "video_pretraining": {"curriculum", "max_frames", "video_projector_start", "image_branch_steps"},
    "video_frames": {"max_frames", "max_tiles", "frame_size"},
    "anyres": {"max_tiles", "pool_size"},
    "visual_encoder": {"vision_encoder", "image_size", "stride"},
    "visual_projector": {"projector"},
}


@pytest.mark.parametrize("name", VISION)
def test_rows_of_a_vision_study_differ_in_what_is_compared_alone(name):
    ablation = load_ablation(name)
    assert set(ablation.varied) == VARIED[name]
    for rung in ablation.rungs:
        for row in ablation.rows:
            cell = ablation.resolve(row.key, rung.name).as_dict()
            plain = {**ablation.base.as_dict(), **rung.base, **rung.changes}
            assert {n for n in cell if cell[n] != plain[n]} <= row.changes.keys()


@pytest.mark.parametrize("name", VISION)
def test_a_row_writes_only_what_it_changes(name):
    ablation = load_ablation(name)
    for row in ablation.rows:
        # A row that repeats the base's value would hide it from a rung that changes it, unless that is what it is for.
        same = {n for n, value in row.changes.items() if getattr(ablation.base, n) == value}
        kept = {n for rung in ablation.rungs for n in rung.base}
        assert same <= {"projector", "vision_encoder"} | kept, row.key


@pytest.mark.parametrize("rung", ["gpu", "paper"])
def test_videos_are_seen_in_the_papers_48_frames_at_larger_rungs_but_where_a_row_says_otherwise(rung):
    frames = {
        row.key: load_ablation("video_pretraining").resolve(row.key, rung).max_frames
        for row in load_ablation("video_pretraining").rows
    }
    assert frames.pop("single_frame") == 1
    assert frames.pop("text_only") == 0
    assert set(frames.values()) == {48}
    declared = load_ablation("video_frames")
    assert [declared.resolve(row.key, rung).max_frames for row in declared.rows] == [8, 16, 32, 48, 8, 48]


@pytest.mark.parametrize("name", VISION)
def test_every_contrast_compares_two_rows_of_the_main_study(name):
    main = {row.key for row in load_ablation(name).rows if row.main}
    contrasts = load_contrasts(name)
    assert contrasts
    for contrast in contrasts:
        assert contrast.baseline != contrast.candidate
        assert {contrast.baseline, contrast.candidate} <= main


@pytest.mark.parametrize("name", VISION)
def test_every_name_in_a_vision_study_exists_and_its_stages_can_be_made(name):
    ablation = load_ablation(name)
    for rung in ablation.rungs:
        for row in ablation.rows:
            cell = ablation.resolve(row.key, rung.name)
            assert cell.projector in VISUAL_PROJECTORS
            assert cell.curriculum in CURRICULA
            check_vision_encoder(cell.vision_encoder)
            stages = cell_stages(cell)
            assert sum(stage.steps for stage in stages) == cell.steps + cell.image_branch_steps
            for kind in cell_kinds(cell):
                assert getattr(cell, {IMAGE: "images", VIDEO: "videos"}[kind])
            assert {kind for stage in stages for kind in stage.data} == cell_kinds(cell)
            for source in filter(None, (cell.images, cell.videos, cell.test_source)):
                check_source(source)


@pytest.mark.parametrize("name", VISION)
def test_a_vision_studys_trial_makes_stages_of_every_row(name):
    ablation = load_ablation(name)
    for value in ablation.trial.values:
        for row in ablation.rows:
            changes = {**ablation.trial.changes, ablation.trial.parameter: value}
            assert cell_stages(replace(ablation.resolve(row.key, "cpu"), **changes))


@pytest.mark.parametrize("name", VISION)
def test_the_vision_studies_are_of_one_base_and_train_for_the_same_cost(name):
    ablation = load_ablation(name)
    assert ablation.notebook == "vision_language"
    for rung in ablation.rungs:
        cells_of_rung = [ablation.resolve(row.key, rung.name) for row in ablation.rows]
        assert len({(cell.steps, cell.batch_tokens, cell.learning_rate) for cell in cells_of_rung}) == 1


def test_the_papers_rung_of_the_video_study_is_the_papers_encoder_rate_and_frozen_parts():
    cell = load_ablation("video_pretraining").resolve("staged", "paper")
    assert cell.vision_encoder == "google/siglip-so400m-patch14-384"
    assert (cell.image_size, cell.frames_per_second, cell.learning_rate) == (384, 1.0, 4e-6)
    for stage in cell_stages(cell):
        assert stage.trained == PAPER_STAGES["video"].trained
        assert set(stage.data) <= set(PAPER_STAGES["video"].data)
    first, second = cell_stages(cell)
    assert (set(first.data), set(second.data)) == ({IMAGE}, {IMAGE, VIDEO})


def test_baselines_that_see_less_differ_from_direct_in_their_frames_alone():
    ablation = load_ablation("video_pretraining")
    direct = ablation.resolve("direct", "cpu")
    for row, frames in (("single_frame", 1), ("text_only", 0)):
        assert ablation.resolve(row, "cpu") == replace(direct, max_frames=frames)
