"""`ablations/results/NAME.csv`: one line a cell, written whole from the store, and never by hand.

Its first line holds the SHA-256 of the rest, so that an edited number cannot pass for a measured one. Columns: row,
rung, seed, key, run_id, the parameters that define a row, then the metrics.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from lab import paths
from lab.errors import LabError
from lab.study import store, tracking
from lab.study.ablation import Ablation, Cell, cells, notebook_path
from lab.study.identity import identify, is_prepared
from lab.study.plan import plan

if TYPE_CHECKING:
    import pandas

MARK = "# sha256 of the lines below (written by `lab`, not by hand): "
PLACE = ("row", "rung", "seed", "key", "run_id")

Line = dict[str, str]


def results_path(ablation: Ablation, rung: str) -> Path:
    """The tracked file, or for a rung that is not recorded one beside the store."""
    folder = paths.repository_root() / "ablations" if ablation.rung(rung).recorded else paths.mlruns_dir()
    return folder / "results" / f"{ablation.name}.csv"


def read_table(path: Path, otherwise: str = "") -> list[Line]:
    """The lines of a checksummed file, none where there is no file; a LabError where it was changed by hand."""
    if not path.exists():
        return []
    head, _, body = path.read_text(encoding="utf-8").partition("\n")  # universal newlines: git may have turned them
    if f"{head}\n" != _head(body):
        raise changed_by_hand(path, otherwise)
    return list(csv.DictReader(io.StringIO(body)))


def changed_by_hand(path: Path, otherwise: str) -> LabError:
    """The refusal of a tracked file whose checksum does not fit; `otherwise` is what helps besides git."""
    shown = path.relative_to(paths.repository_root()) if path.is_relative_to(paths.repository_root()) else path
    return LabError(
        f"{shown} was changed by hand (its checksum does not fit); it is left as it is. Restore it with `git "
        f"checkout {shown}`{otherwise}"
    )


def write_table(path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> Path:
    """Write a checksummed file whole; one that says the same is left alone."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    text = _head(buffer.getvalue()) + buffer.getvalue()
    same = path.exists() and path.read_text(encoding="utf-8") == text
    return path if same else paths.write_whole(path, text)


def _head(body: str) -> str:
    return f"{MARK}{hashlib.sha256(body.encode()).hexdigest()}\n"


def lock(name: str) -> FileLock:
    """Held while a file of results is read and written anew."""
    paths.mlruns_dir().mkdir(parents=True, exist_ok=True)
    return FileLock(paths.mlruns_dir() / f"{name}.lock")


def read_lines(ablation: Ablation, rung: str) -> list[Line]:
    """The lines of every rung in that rung's file, as `read_table`."""
    rebuild = f", or write it anew from the tracked runs with `lab results {ablation.name} --rebuild`"
    return read_table(results_path(ablation, rung), rebuild)


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _line(ablation: Ablation, cell: Cell, run: store.RunRecord) -> Line:
    place = {"row": cell.row, "rung": cell.rung, "seed": str(cell.seed), "key": cell.key, "run_id": run.run_id}
    own = {name: str(cell.parameters[name]) for name in ablation.varied}
    return {**place, **own, **{name: _number(value) for name, value in run.results.items()}}


def _write(ablation: Ablation, rung: str, lines: Iterable[Line]) -> Path:
    rungs = {rung.name: number for number, rung in enumerate(ablation.rungs)}
    rows = {row.key: number for number, row in enumerate(ablation.rows)}

    def order(line: Line) -> tuple[int, int, int, str]:
        return rungs.get(line["rung"], len(rungs)), rows.get(line["row"], len(rows)), int(line["seed"]), line["key"]

    ordered = sorted(lines, key=order)
    head = [*PLACE, *ablation.varied]
    measured = {name for line in ordered for name in line} - set(head)
    shown = [column.metric for column in ablation.columns if column.metric in measured]
    head += [*shown, *sorted(measured - set(shown))]
    return write_table(results_path(ablation, rung), head, ordered)


def _merge(
    ablation: Ablation,
    rung: str,
    prepared: Mapping[str, Any],
    lines: Sequence[Line],
    current: Sequence[Cell] | None = None,
) -> list[Line]:
    """`lines` with those of the rung's current cells brought up to date: of all that have an identity where None.

    A line of this rung stays where its cell is not among the store's done ones only if it has the cell's current key
    (somebody else's run of the very same cell), or if its cell is not among the current ones.
    """
    if current is None:
        own = [run.tags for run in store.tagged_runs("ablation", ablation.name) if run.tags.get("kind") == "cell"]
        seeds = {int(known["seed"]) for known in (*lines, *own) if known["rung"] == rung}
        every = cells(ablation, rung, "all", sorted(seeds.union(ablation.seeds)))
        current = identify([cell for cell in every if is_prepared(cell, prepared)], notebook_path(ablation), prepared)
    identified = {(cell.row, rung, str(cell.seed)): cell.key for cell in current}
    merged = {
        (entry.cell.row, rung, str(entry.cell.seed)): _line(ablation, entry.cell, entry.run)
        for entry in plan(current)
        if entry.state == "done" and entry.run is not None
    }
    rows = {row.key for row in ablation.rows}
    for line in lines:
        place = (line["row"], line["rung"], line["seed"])
        of_the_rung = line["rung"] == rung
        if not of_the_rung or (line["row"] in rows and identified.get(place, line["key"]) == line["key"]):
            merged.setdefault(place, line)
    return list(merged.values())


def update_results(
    ablation: Ablation, rung: str, prepared: Mapping[str, Any], current: Sequence[Cell] | None = None
) -> Path | None:
    """Write the lines of the current cells anew from the store (see `_merge`); None where there is no line at all."""
    with lock(f"results-{ablation.name}"):
        merged = _merge(ablation, rung, prepared, read_lines(ablation, rung), current)
        return _write(ablation, rung, merged) if merged else None


def rebuild_results(ablation: Ablation) -> list[Path]:
    """Write the files from the tracked runs alone, whatever stands in them now; a LabError where there is no run."""
    files: dict[Path, list[Line]] = {}
    for rung in (entry.name for entry in ablation.rungs):
        if study := tracking.find_study(ablation.name, rung):
            before = files.get(results_path(ablation, rung), [])
            files[results_path(ablation, rung)] = _merge(ablation, rung, json.loads(study.tags["prepared"]), before)
    if not any(files.values()):
        raise LabError(
            f"{store.database()} has no tracked run of {ablation.name!r} to write results from; "
            f"run `lab reproduce {ablation.name}` first"
        )
    with lock(f"results-{ablation.name}"):
        return [_write(ablation, lines[0]["rung"], lines) for lines in files.values() if lines]


def load_results(ablation: Ablation, rung: str) -> "pandas.DataFrame":
    """The lines of one rung, numbers as numbers, `None` for an empty string; a LabError where there is none."""
    import pandas

    lines = [line for line in read_lines(ablation, rung) if line["rung"] == rung]
    if not lines:
        raise LabError(
            f"there are no results of {ablation.name!r} at rung {rung!r}; "
            f"run `lab reproduce {ablation.name} --rung {rung}`"
        )
    text = pandas.DataFrame(lines).to_csv(index=False)
    # A key may consist of digits alone, or look like 12e34567.
    return pandas.read_csv(io.StringIO(text), dtype={"row": str, "rung": str, "key": str, "run_id": str})


def load_utterances(ablation: Ablation, rung: str, rows: Sequence[str] | None = None) -> "pandas.DataFrame":
    """The utterances of every cell in the results file, with its row, seed and the parameters that define the row.

    Of every row where `rows` is None.

    Raises:
        LabError: a cell's `utterances.parquet` is not on this machine (its run was made elsewhere).
    """
    import pandas

    results = load_results(ablation, rung)
    if rows is not None:
        results = results[results["row"].isin(rows)]
    tables = []
    for line in results.to_dict("records"):
        path = store.artifact(line["run_id"], "utterances.parquet")
        if not path.exists():
            raise LabError(
                f"the utterances of {line['row']}, seed {line['seed']} (run {line['run_id']}) are not in "
                f"{paths.mlruns_dir()}; run `lab reproduce {ablation.name} --rung {rung}` to measure them here"
            )
        own = {name: line[name] for name in ablation.varied if name in line}
        tables.append(pandas.read_parquet(path).assign(row=line["row"], seed=line["seed"], **own))
    return pandas.concat(tables, ignore_index=True)


def summary(ablation: Ablation, rung: str) -> "pandas.DataFrame":
    """The mean over seeds of every column of the table, by row label, in the table's units."""
    results = load_results(ablation, rung)
    grouped = results.groupby("row", sort=False)
    table = grouped.size().to_frame("seeds")
    for column in ablation.columns:
        if column.metric in results:
            unit = f" ({column.unit})" if column.unit else ""
            table[f"{column.label}{unit}"] = grouped[column.metric].mean() * column.scale
    labels = {row.key: row.label for row in ablation.rows}
    return table.rename(index=labels).rename_axis(None)
