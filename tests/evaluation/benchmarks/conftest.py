from pathlib import Path

import pytest

from lab.data import hub
from lab.evaluation.benchmarks.multimodal import VARIABLE
from tests.evaluation.benchmarks.lmms_eval_stand_in import StandIn


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setenv("OMNI_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(hub, "data_revision", lambda name: f"commit of {name}")
    for name in ("OPENAI_API_KEY", "AZURE_API_KEY", "API_TYPE", "MODEL_VERSION", "OPENAI_API_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    return StandIn(tmp_path / "environment")


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return str(tmp_path / "model")
