"""Runs the sweeps of ``benchmarks/evidence/``, and writes their report and the README's table.

    python benchmarks/evidence.py                 # run what is missing, then write the report
    python benchmarks/evidence.py --report-only   # write the report from the runs that are there

The runs go to ``docs/results/benchmark-0.2.sqlite``; those that are in it are not repeated. The
report is beside it, as ``.html`` and ``.md``. The runs of 0.1.0 are in ``benchmark.sqlite``, to
which nothing is added. Report them with ``--report-only --store docs/results/benchmark.sqlite``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from gaba.bench import report
from gaba.bench.report import time_ratio
from gaba.bench.statistics import sign_flip, t_interval

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "benchmarks" / "evidence").glob("*.toml"))
RESULTS = ROOT / "docs" / "results"
STORE = RESULTS / "benchmark-0.2.sqlite"
MARKS = ("<!-- benchmark:start -->", "<!-- benchmark:end -->")
BASE = "uniform"
SWEEP = "fixed-sweep"
FLOOR = "fixed:0.0476,0.9524"
"""The weights at which the floor leaves the published algorithm, as the report writes them."""
TITLES = {
    ("turbofan-fd001", "adam"): "FD001 (2)",
    ("turbofan-fd002", "adam"): "FD002 (2)",
    ("turbofan-fd003", "adam"): "FD003 (2)",
    ("turbofan-fd004", "adam"): "FD004 (2)",
    ("gas-turbine-time", "adam"): "gas turbine (3)",
    ("gas-turbine-time", "sgd"): "the same, SGD",
    ("gas-turbine-random", "adam"): "rows at random",
    ("multi-mnist", "adam"): "MultiMNIST (3)",
    ("pinn-burgers", "adam"): "Burgers (3)",
    ("pinn-poisson", "adam"): "Poisson (2)",
    ("synthetic-40", "adam"): "synthetic (40)",
    ("conflict-toy", "adam"): "toy (2)",
}
SHOWN = 3
"""A method is in the table of the README if it ran on so many problems."""

Place: TypeAlias = "tuple[str, str]"
Qualities: TypeAlias = "dict[Place, dict[str, dict[int, float]]]"


def run(store: Path, jobs: int) -> None:
    """Make what is missing of every sweep."""
    for config in CONFIGS:
        words = ["bench", "run", str(config), "--jobs", str(jobs), "--store", str(store)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, "-m", "gaba", *words], cwd=ROOT, env=environment, check=True
        )


def qualities(store: Path) -> tuple[Qualities, dict[Place, dict[str, float]]]:
    """Test quality by problem, method and seed; and the seconds a step took, over uniform's."""
    blocks = {(block.problem, block.optimizer): block for block in report.read(store).blocks}
    found = {place: {m: b.qualities(m) for m in b.final} for place, b in blocks.items()}
    ratios = {place: {m: time_ratio(b, m) for m in b.final} for place, b in blocks.items()}
    return found, ratios


def paired(own: dict[int, float], base: dict[int, float]) -> list[float]:
    """The difference to ``base`` at each seed that both have, in per cent of their mean."""
    seeds = sorted(set(own) & set(base))
    return [100 * 2 * (own[s] - base[s]) / (own[s] + base[s]) for s in seeds]


def difference(own: dict[int, float], base: dict[int, float]) -> tuple[float, bool]:
    """Mean paired difference to ``base`` in per cent, and whether its interval leaves out 0."""
    relative = paired(own, base)
    mean = statistics.fmean(relative)
    if len(set(relative)) < 2:
        return mean, False
    interval = t_interval(relative)
    return mean, not interval.low <= 0 <= interval.high


def table(found: Qualities, ratios: dict[Place, dict[str, float]]) -> str:
    """Methods by problems: the difference to equal weights on test data."""
    places = [place for place in TITLES if BASE in found.get(place, {})]
    counts = {m: sum(m in found[p] for p in places) for p in places for m in found[p]}
    shown = [
        m
        for m, n in counts.items()
        if n >= SHOWN and m != BASE and not m.startswith(("frozen:", "single:"))
    ]
    cells = {
        m: {p: difference(found[p][m], found[p][BASE]) for p in places if m in found[p]}
        for m in shown
    }
    shown.sort(key=lambda m: statistics.fmean(mean for mean, _ in cells[m].values()))
    lines = [
        "| method | " + " | ".join(TITLES[p] for p in places) + " | time of a step |",
        "| --- |" + " ---: |" * (len(places) + 1),
    ]
    for m in shown:
        row = [_cell(*cells[m][p]) if p in cells[m] else "" for p in places]
        times = [ratios[p][m] for p in places if m in ratios.get(p, {})]
        lines.append(f"| `{m}` | " + " | ".join(row) + f" | {statistics.median(times):.2f} |")
    return "\n".join(lines)


def against(found: Qualities, places: Sequence[Place], method: str, base: str) -> str:
    """``method`` against ``base``: the mean over all seeds of ``places``, its interval, and p."""
    relative = [d for p in places for d in paired(found[p][method], found[p][base])]
    mean, interval = statistics.fmean(relative), t_interval(relative)
    said = f"{mean:+.1f} ({interval.low:+.1f} to {interval.high:+.1f}), p {sign_flip(relative):.2f}"
    return f"{said}, {len(relative)} pairs".replace("-", "−")


def sentences(found: Qualities) -> Iterator[str]:
    """The figures of what README says below the table: all of turbofan, and against the sweep."""
    turbofan = [p for p in found if p[0].startswith("turbofan-")]
    for base in (BASE, SWEEP, FLOOR):
        for method in ("gaba", "paper", "inverse"):
            if all({method, base} <= set(found[p]) for p in turbofan):
                yield f"turbofan, {method} against {base}: {against(found, turbofan, method, base)}"
    for place in TITLES:
        if {"inverse", SWEEP} <= set(found.get(place, {})):
            said = against(found, [place], "inverse", SWEEP)
            yield f"{TITLES[place]}, inverse against {SWEEP}: {said}"


def _cell(mean: float, sure: bool) -> str:
    text = f"{mean:+.1f}".replace("-", "−")
    return f"**{text}**" if sure else text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--report-only", action="store_true", help="run nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time")
    parser.add_argument("--store", type=Path, default=STORE, help="where the runs are")
    asked = parser.parse_args()
    if not asked.report_only:
        run(asked.store, asked.jobs)
    for form in ("html", "md"):
        report.write(asked.store, asked.store.with_suffix(f".{form}"), form)
    page = ROOT / "README.md"
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(MARKS[0])
    _, tail = rest.split(MARKS[1])
    found, ratios = qualities(asked.store)
    body = f"{MARKS[0]}\n\n{table(found, ratios)}\n\n{MARKS[1]}"
    print(*sentences(found), sep="\n")
    page.write_text(f"{head}{body}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
