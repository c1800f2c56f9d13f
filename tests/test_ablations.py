import pytest

from lab.evaluation.normalizers import NORMALIZERS
from lab.paper.claims import load_contrasts
from lab.parts.audio_projectors import AUDIO_PROJECTORS, build_audio_projector
from lab.paths import repository_root
from lab.study.ablation import load_ablation
from lab.study.cells import cells, notebook_path
from lab.study.parameters import check_parameters
from lab.study.preparation import PREPARED_PARAMETERS

NAMES = sorted(path.stem for path in (repository_root() / "ablations").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_of_every_rung_fits_its_notebook(name):
    ablation = load_ablation(name)
    for rung in ablation.rungs:
        check_parameters(cells(ablation, rung.name, rows="all"), notebook_path(ablation))


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
        assert parameters["normalizer"] in NORMALIZERS
        budget = {"parameter_budget": parameters["parameter_budget"]} if parameters["parameter_budget"] else {}
        widths = {"hidden_size": 384, "output_size": 192, "downsample_rate": parameters["downsample_rate"]}
        projector = build_audio_projector(parameters["projector"], **widths, **budget)
        sizes[row.key] = sum(parameter.numel() for parameter in projector.parameters())
    for rate in (2, 4, 8):
        assert sizes[f"mean_pool_gmlp_{rate}"] == pytest.approx(sizes[f"conv_gmlp_{rate}"], rel=0.005)
    for rate in (4, 8):
        assert sizes[f"conv_gmlp_budget_{rate}"] == pytest.approx(sizes["conv_gmlp_2"], rel=0.01)
    for contrast in load_contrasts("conv_gmlp_rate"):
        assert {contrast.baseline, contrast.candidate} <= AUDIO_PROJECTORS.keys()


def test_what_is_prepared_depends_on_parameters_that_the_ablation_has():
    assert set(PREPARED_PARAMETERS) <= load_ablation("conv_gmlp_rate").base.keys()
