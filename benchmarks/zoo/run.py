"""The zoo: public training codes, as they are and balanced, and what each way ends with.

    python benchmarks/zoo/run.py                          # runs what is missing, then the page
    python benchmarks/zoo/run.py --codes ppo vae --seeds 2
    python benchmarks/zoo/run.py --budget-minutes 60      # the same command resumes
    python benchmarks/zoo/run.py --table-only

Each run is a process of its own on one core and takes about half a minute. Its result is appended
to ``docs/results/zoo.jsonl`` as it finishes, so it is safe to interrupt. ``make zoo`` installs what
the codes need in an environment of its own and starts this.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STORE = HERE.parents[1] / "docs" / "results" / "zoo.jsonl"
CODES = tuple(sorted(p.stem for p in (HERE / "codes").glob("[a-z]*.py")))
ARMS = ("own", "gaba", "naive", "observe", "paper", "uncertainty")
LIMIT = 900.0
"""Seconds after which a run counts as hung."""


def stored(store: Path) -> list[dict[str, Any]]:
    """The runs so far, the last of each kind; a line that a kill cut short is left out."""
    rows = []
    for line in store.read_text().splitlines() if store.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return list({(row["code"], row["arm"], row["seed"]): row for row in rows}.values())


def missing(
    codes: Sequence[str], arms: Sequence[str], seeds: int, rows: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, str, int]]:
    """The runs that are not in the store, seed by seed, so that a part of them is a fair part."""
    done = {(row["code"], row["arm"], row["seed"]) for row in rows if "error" not in row}
    for seed in range(seeds):
        for code in codes:
            for arm in arms:
                if (code, arm, seed) not in done:
                    yield code, arm, seed


def train(code: str, arm: str, seed: int) -> dict[str, Any]:
    """One run, in a process of its own."""
    begin = time.monotonic()
    row: dict[str, Any] = {"code": code, "arm": arm, "seed": seed}
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / "one.py"), code, arm, str(seed)],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"},
        )
    except subprocess.TimeoutExpired:
        return row | {"error": f"no end within {LIMIT:.0f} s"}
    lines = done.stdout.strip().splitlines()
    try:
        row = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        said = done.stderr.strip().splitlines() or ["nothing was printed"]
        row |= {"error": f"exit status {done.returncode}: {said[-1]}"[:500]}
    return row | {"wall": round(time.monotonic() - begin, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--codes", nargs="+", choices=CODES, default=list(CODES))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="also gaba@limit=32")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each on one core")
    parser.add_argument("--budget-minutes", type=float, help="start no run after that")
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument("--store", type=Path, default=STORE)
    asked = parser.parse_args()
    rows = stored(asked.store)
    if rows and not asked.store.read_bytes().endswith(b"\n"):  # a kill has cut the last line short
        with asked.store.open("a", encoding="utf-8") as file:
            file.write("\n")
    end = time.monotonic() + 60 * (asked.budget_minutes or float("inf"))
    todo = [] if asked.table_only else list(missing(asked.codes, asked.arms, asked.seeds, rows))

    def one(run: tuple[str, str, int]) -> None:
        if time.monotonic() < end:
            row = train(*run)
            with asked.store.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            said = (
                row.get("error") or row.get("left_out") or f"{row.get('figure', float('nan')):.4g}"
            )
            print(*run, said, f"{row.get('wall', 0):.0f} s", flush=True)

    with ThreadPoolExecutor(asked.jobs) as pool:
        list(pool.map(one, todo))
    import page

    page.write(stored(asked.store), asked.store.with_suffix(".md"))


if __name__ == "__main__":
    main()
