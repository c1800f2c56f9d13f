"""A million short samples through a recipe of deduplication, filters and packing: rows a second, and peak memory.

    python benchmarks/recipe.py [--samples 1000000] [--workers 2] [--no-near]

The samples are made on the spot (prompts of 6 to 12 made-up words, answers of 8 to 24, drawn from 20,000), and into
them are planted exact duplicates (5%), near duplicates (5%: one word of the answer is another one) and empty answers
(2%), all at random places. The recipe is not_empty, exact_duplicates, near_duplicates (MinHash over runs of
five characters), length_between and pack. What has to be dropped is known, and compared with the card.

Memory is measured from outside, every 20 ms: the resident memory of the process that builds and of all its children,
added up, so that pages that they share count more than once. Making the samples is not part of the time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from lab.errors import LabError
from lab.paths import repository_root

NUM_WORDS, FILE_ROWS, POLL_SECONDS = 20_000, 50_000, 0.02
EXACT, NEAR, EMPTY = 0.05, 0.05, 0.02
MEGABYTE = 1024 * 1024
LIMIT_MEGABYTES = 2048

RECIPE = """
name = "million"
[[source]]
name = "made"
from = "files"
path = "samples"
licence = "made on the spot"
[[step]]
use = "not_empty"
[[step]]
use = "exact_duplicates"
{near}
[[step]]
use = "length_between"
most = 20
[[step]]
use = "pack"
budget = 4096
"""
NEAR_STEP = """
[[step]]
use = "near_duplicates"
threshold = 0.7
num_permutations = 64
"""
BUILD = """
import sys
from pathlib import Path
from lab.data.recipes.run import build
from lab.data.recipes.recipe import read_recipe
if __name__ == "__main__":
    build(read_recipe(Path(sys.argv[1])), out=Path(sys.argv[2]), workers=int(sys.argv[3]))
"""


def write_samples(folder: Path, num_samples: int, seed: int = 0) -> dict[str, int]:
    """Write the samples as Parquet files; returns how many of each kind were planted."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = np.array(["".join(rng.choice(letters, length)) for length in rng.integers(3, 9, NUM_WORDS)])
    planted = {"exact": int(EXACT * num_samples), "near": int(NEAR * num_samples), "empty": int(EMPTY * num_samples)}
    places = rng.permutation(num_samples)
    kinds = np.zeros(num_samples, dtype=np.int8)
    begin = 0
    for code, count in enumerate(planted.values(), 1):
        kinds[places[begin : begin + count]] = code
        begin += count
    originals = np.flatnonzero(kinds == 0)
    # Of each place, the sample whose words it has; each is drawn from a seed of its own, so no text has to be held.
    source = np.arange(num_samples)
    copies = np.isin(kinds, (1, 2))
    # No original is copied twice, so that of the near ones each is dropped for one pair alone.
    source[copies] = rng.choice(originals, int(copies.sum()), replace=False)
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, num_samples, FILE_ROWS)):
        rows = [
            _sample(vocabulary, int(source[i]), int(kinds[i]), seed)
            for i in range(start, min(start + FILE_ROWS, num_samples))
        ]
        table = pa.table({"prompt": [row[0] for row in rows], "answer": [row[1] for row in rows]})
        pq.write_table(table, folder / f"{number:05d}.parquet")
    return planted


def _sample(vocabulary: np.ndarray, number: int, kind: int, seed: int) -> tuple[str, str]:
    # Philox can be set to any place of its stream at no cost; seeding another generator takes ten times longer.
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number]))
    lengths = rng.integers((6, 8), (13, 25))
    words = vocabulary[rng.integers(NUM_WORDS, size=lengths.sum())].tolist()
    prompt, answer = words[: lengths[0]], words[lengths[0] :]
    if kind == 2:
        answer[int(rng.integers(len(answer)))] = "otherwise"
    return " ".join(prompt), "" if kind == 3 else " ".join(answer)


def build_watched(folder: Path, workers: int) -> tuple[float, int]:
    """Build in a process of its own; returns its seconds, and the bytes at most of it and all its children.

    Raises:
        LabError: it fails.
    """
    environment = {**os.environ, "OMNI_LAB_CACHE": str(folder / "cache"), "PYTHONPATH": str(repository_root())}
    if os.environ.get("PYTHONPATH"):
        environment["PYTHONPATH"] += os.pathsep + os.environ["PYTHONPATH"]
    script = folder / "build.py"  # a file, because processes that are spawned run it again
    script.write_text(BUILD)
    command = [sys.executable, str(script), str(folder / "million.toml"), str(folder / "out"), str(workers)]
    begun, peak = time.perf_counter(), 0
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _resident(watched))
            time.sleep(POLL_SECONDS)
    if process.returncode:
        raise LabError(f"the build ended with exit code {process.returncode}: {(folder / 'log').read_text()[-2000:]}")
    return time.perf_counter() - begun, peak


def _resident(process: psutil.Process) -> int:
    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_info().rss
    except psutil.Error:  # one that has just ended
        pass
    return total


def check(card: dict[str, Any], planted: dict[str, int]) -> list[str]:
    """Compare the card with what was planted; returns lines about it.

    Raises:
        LabError: rows are not accounted for, or the exact kinds are not found to the last one.
    """
    dropped = {step["use"]: sum(step["dropped"].values()) for step in card["steps"]}
    found = {"exact": dropped["exact_duplicates"], "empty": dropped["not_empty"]}
    for kind, count in found.items():
        if count != planted[kind]:
            raise LabError(f"{planted[kind]:,} samples were planted as {kind}, and {count:,} were dropped")
    if card["rows_in"] != card["rows"] + sum(dropped.values()):
        raise LabError("the rows of the card do not balance")
    lines = [f"dropped: {found['empty']:,} empty and {found['exact']:,} exact duplicates, all that were planted"]
    if "near_duplicates" in dropped:
        lines.append(f"near duplicates dropped: {dropped['near_duplicates']:,} ({planted['near']:,} were planted)")
    packs = card["steps"][-1]["numbers"]
    lines.append(f"{card['rows']:,} rows in {packs['packs']:,} packs, {1 - packs['used'] / packs['places']:.2%} waste")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the samples, build, and print."""
    parser = argparse.ArgumentParser(description="Short samples through a recipe: rows a second, peak memory.")
    parser.add_argument("--samples", type=int, default=1_000_000, help="short samples [1000000]")
    parser.add_argument("--workers", type=int, default=2, help="processes [2]")
    parser.add_argument("--no-near", action="store_true", help="leave near_duplicates out")
    options = parser.parse_args(arguments)
    if options.samples < 100 or options.workers < 1:
        raise LabError("the benchmark needs --samples of at least 100 and --workers of at least 1")
    with tempfile.TemporaryDirectory(prefix="recipe-") as scratch:
        folder = Path(scratch)
        planted = write_samples(folder / "samples", options.samples)
        (folder / "million.toml").write_text(RECIPE.format(near="" if options.no_near else NEAR_STEP))
        load = os.getloadavg()[0]
        print(
            f"{options.samples:,} samples made; {load:.1f} processes want to run on {os.cpu_count()} cores", flush=True
        )
        seconds, peak = build_watched(folder, options.workers)
        card = json.loads((folder / "out" / "card.json").read_text())
        print(f"{seconds:.1f} s, {options.samples / seconds:,.0f} samples a second with {options.workers} workers")
        verdict = "within" if peak <= LIMIT_MEGABYTES * MEGABYTE else "ABOVE"
        print(f"peak memory of all processes: {peak / MEGABYTE:.0f} MB, {verdict} {LIMIT_MEGABYTES} MB")
        print(f"  reading: {card['read']['seconds']:.1f} s")
        for step in card["steps"]:
            print(f"  {step['use']}: {step['seconds']:.1f} s, {step['rows_in']:,} in, {step['rows']:,} out")
        print("\n".join(check(card, planted)))


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"error: {error}")
