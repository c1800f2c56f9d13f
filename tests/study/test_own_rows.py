import tomllib

import pytest

from lab.errors import LabError
from lab.study.ablation import free_key, load_ablation, own_rows_file, save_own_row

CHANGES = {"downsample_rate": 3, "projector": "conv_gmlp"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A checkout with one declared ablation whose rows may be added to."""
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "toy.py").write_text(
        "from dataclasses import dataclass\n"
        "from lab.study.ablation import Ablation, Column, Row, Rung\n"
        "from lab.training.parameters import Parameters\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class ToyParameters(Parameters):\n"
        "    downsample_rate: int = 1\n    projector: str = 'mlp'\n    share: float = 0.5\n    packed: bool = False\n"
        "ablation = Ablation(name='toy', paper='none', claim='none', notebook='toy', seeds=(0,), "
        "base=ToyParameters(), "
        "rungs=(Rung(name='cpu', description='small'),), rows=(Row(key='first', label='First', changes={}),), "
        "columns=(Column(metric='test_loss', label='loss', unit='nats', better='lower'),))\n"
        "def prepare(cells):\n    return {}\n"
    )
    monkeypatch.setenv("OMNI_LAB_CHECKOUT", str(tmp_path))
    return tmp_path


def test_a_saved_row_is_loaded_behind_the_declared_ones_and_is_no_main_row(project):
    path = save_own_row(load_ablation("toy"), "mine", 'Mine, "three" \\ n', CHANGES)
    assert path == own_rows_file("toy")
    assert tomllib.loads(path.read_text())["mine"]["changes"] == CHANGES
    ablation = load_ablation("toy")
    assert [row.key for row in ablation.rows] == ["first", "mine"]
    row = ablation.row("mine")
    assert (row.label, dict(row.changes), row.main) == ('Mine, "three" \\ n', CHANGES, False)
    assert ablation.resolve("mine", "cpu").downsample_rate == 3


def test_a_second_row_leaves_the_first_as_it_was_written(project):
    save_own_row(load_ablation("toy"), "one", "One", {"share": 0.25})
    own_rows_file("toy").write_text("# by hand\n" + own_rows_file("toy").read_text())
    save_own_row(load_ablation("toy"), "two", "Two", {"packed": True})
    assert own_rows_file("toy").read_text().startswith("# by hand\n[one]")
    assert [row.key for row in load_ablation("toy").rows] == ["first", "one", "two"]


@pytest.mark.parametrize(
    ("key", "label", "changes", "message"),
    [
        ("first", "F", {"share": 0.1}, "has the row first twice"),
        ("No Key", "F", {"share": 0.1}, "is not a key"),
        ("new", " ", {"share": 0.1}, "row 'new' has no label"),
        ("new", "New", {"share": [1]}, r"share of row 'new' is \[1\]; expected a text, a number"),
        ("new", "New", {"shar": 0.1}, "unknown parameter in row 'new' of 'toy': 'shar'"),
        ("new", "New", {}, "have the same parameters"),
    ],
)
def test_what_is_no_row_is_refused_and_nothing_is_written(project, key, label, changes, message):
    with pytest.raises(LabError, match=message):
        save_own_row(load_ablation("toy"), key, label, changes)
    assert not own_rows_file("toy").exists()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[one\n", "is no TOML file"),
        ("[one]\nlabel = 'x'\n", "row 'one' of .* is not made of a label"),
        ("one = 3\n", "row 'one' of .* is not made of a label"),
        ("[one]\nlabel = 3\nchanges = {}\n", "row 'one' of .* is not made of a label"),
    ],
)
def test_a_file_that_holds_no_rows_is_named(project, written, message):
    own_rows_file("toy").write_text(written)
    with pytest.raises(LabError, match=message):
        load_ablation("toy")


def test_a_free_key_is_one_that_no_row_has(project):
    assert free_key(load_ablation("toy"), "Gaussian, k = 1.2") == "gaussian_k_1_2"
    assert free_key(load_ablation("toy"), "First") == "first_2"
    save_own_row(load_ablation("toy"), "first_2", "x", {"share": 0.1})
    assert free_key(load_ablation("toy"), "first") == "first_3"
    assert free_key(load_ablation("toy"), "?") == "row"


def test_rows_may_begin_with_a_byte_order_mark(project):
    own_rows_file("toy").write_text('[mine]\nlabel = "中"\nchanges = { share = 0.25 }\n', encoding="utf-8-sig")
    save_own_row(load_ablation("toy"), "other", "other", CHANGES)
    assert [row.label for row in load_ablation("toy").rows] == ["First", "中", "other"]
