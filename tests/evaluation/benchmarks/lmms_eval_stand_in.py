"""A program that answers and writes as lmms-eval 0.7.3 does, put where a Python or `lmms-eval` is expected.

Checked against the real one (its `dummy` model on a task of our own): the answers to `version` and `models --aliases`,
the names and contents of the files, the bars, and that a failed evaluation ends with status 0 and no results.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DATE = "20261127_233246"
VERSION = "lmms-eval 0.7.3\nPython     3.11.7\nGit        unknown\ntorch      2.15.0\ntransformers5.23.0\n"
MODELS = """
Registered Models (3 total)

Name                        Type          Aliases                                 
----------------------------------------------------------------------------------
vllm                        chat+simple   vllm_chat, vllm_one
openai                      chat+simple   openai_compatible, openai_compatible_chat
qwen2_vl                    simple        
----------------------------------------------------------------------------------

  chat-only: 0  |  chat+simple: 2  |  simple-only: 1
  Tip: chat models are recommended for new evaluations.
"""

_PROGRAM = """#!{python} -IS
import json, os, pathlib, sys, time
here = pathlib.Path({folder!r})
told = json.loads((here / "told.json").read_text())
arguments = sys.argv[3:] if sys.argv[1:3] == ["-m", "lmms_eval"] else sys.argv[1:]
if arguments in (["version"], ["models", "--aliases"]):
    said = told[arguments[0]]
    if said is None:
        sys.exit("ModuleNotFoundError: No module named 'loguru'")
    print(said)
    sys.exit(0)
with (here / "asked.jsonl").open("a") as asked:
    asked.write(json.dumps(arguments) + "\\n")
(here / "api_type").write_text(os.environ.get("API_TYPE", "not set"))
print("\\x1b[32m2026-11-27 23:32:46\\x1b[0m | Running generate_until requests", flush=True)
for done in range(told["bar"] + 1):
    sys.stderr.write(f"\\rModel Responding:  50%|##   | {{done}}/{{told['bar']}} [00:00<00:00, 9.00it/s]")
    sys.stderr.flush()
print(file=sys.stderr)
(here / "pid").write_text(str(os.getpid()))
time.sleep(told["sleep"])
output = pathlib.Path(arguments[arguments.index("--output_path") + 1])
for name, text in told["files"].items():
    path = output / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
if told["says"]:
    print(told["says"], file=sys.stderr)
sys.exit(told["status"])
"""


class StandIn:
    """The program in a folder; what it is told to write and say may change between calls."""

    def __init__(self, folder: Path, name: str = "python") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path = folder, folder / name
        self.told: dict[str, Any] = {
            "version": VERSION,
            "models": MODELS,
            "bar": 4,
            "sleep": 0,
            "files": {},
            "says": "",
            "status": 0,
        }
        self.path.write_text(_PROGRAM.format(python=sys.executable, folder=str(folder)), encoding="utf-8")
        self.path.chmod(0o755)
        self.tell()

    def tell(self, **told: object) -> None:
        self.told.update(told)
        (self.folder / "told.json").write_text(json.dumps(self.told), encoding="utf-8")

    def writes(self, results: Mapping[str, Mapping[str, object]], samples: Mapping[str, list[dict[str, Any]]]) -> None:
        """Metrics of each task, without their filter, and its samples, each with what `process_results` gave."""
        model = "own__model"
        aggregated = {
            task: {"alias": task, **{_filtered(name): value for name, value in metrics.items()}}
            for task, metrics in results.items()
        }
        files = {
            f"{model}/{DATE}_results.json": json.dumps({"results": aggregated, "configs": {}, "date": DATE}),
            "submissions/mmbench_en_dev_static_results.json": json.dumps({"overall_acc": 0.1}),
        }
        for task, lines in samples.items():
            whole = [
                {
                    "doc_id": number,
                    "target": f"target {number}",
                    "filtered_resps": f"answer {number}",
                    "token_counts": [None],
                    "doc_hash": "74234e98",
                    **line,
                    "input": f"prompt {number}",
                }
                for number, line in enumerate(lines)
            ]
            files[f"{model}/{DATE}_samples_{task}.jsonl"] = "".join(f"{json.dumps(line)}\n" for line in whole)
        self.tell(files=files)

    def asked(self) -> list[list[str]]:
        """The arguments of every evaluation that was asked for."""
        path = self.folder / "asked.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def api_type(self) -> str:
        """What the last evaluation found in the environment."""
        return (self.folder / "api_type").read_text()


def _filtered(name: str) -> str:
    return f"{name},none"
