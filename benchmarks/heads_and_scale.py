"""Which length the update has, and whether heads get the multiplier: the table that decides.

    python benchmarks/heads_and_scale.py                # resumes what was interrupted
    python benchmarks/heads_and_scale.py --seeds 3 --problems pinn-poisson

Each way of the default runs through the unsafe cases of ``safety.py`` (ratio to the plain sum) and
the problems of ``tracked_quality.py`` (ratio to the default with the same seed and learning rate).
Writes ``docs/benchmarks/heads_and_scale.md`` and its ``.jsonl``, one line a run.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safety
import torch
import tracked_quality as quality
from scipy import stats

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "heads_and_scale.md"
WAYS: dict[str, dict[str, Any]] = {
    "the default": {},
    'scale="geometric"': {"scale": "geometric"},
    'scale="max"': {"scale": "max"},
    'heads="plain"': {"heads": "plain"},
}
PROBLEMS = ("conflict-toy", "synthetic-40", "gas-turbine-time", "pinn-poisson", "pinn-burgers")


def spelled(way: dict[str, Any]) -> str:
    """The method of a way, as ``tracked_quality.py`` reads it."""
    return "@".join(["gaba", *(f"{key}={value}" for key, value in way.items())])


def case_line(name: str, optimizer: str, way: str, seeds: int) -> dict[str, Any]:
    """One unsafe case: how much worse than the plain sum it ends, and whether that is safe."""
    line: dict[str, Any] = {"case": name, "optimizer": optimizer, "way": way, "seeds": seeds}
    setting = safety.Setting(**WAYS[way])
    try:
        _, (found,) = safety.measure(safety.CASES[name], optimizer, [setting], range(seeds))
    except ValueError as error:  # heads="plain" has no accumulation
        return line | {"refused": str(error)}
    ratio = found.ratio if math.isfinite(found.ratio) else None
    return line | {"ratio": ratio, "holds": found.holds}


def problem_line(problem: tuple[str, str, float, float, int], way: str, seed: int) -> Any:
    """One training: its quality on validation data."""
    found = quality.run(problem, spelled(WAYS[way]), seed)
    return {"way": way, **{key: found[key] for key in ("problem", "optimizer", "seed", "quality")}}


def ratio(lines: Iterable[dict[str, Any]], way: str) -> str:
    """The geometric mean of the ratios to the default over the seeds, with its 95 % interval."""
    by: dict[str, dict[int, float]] = {}
    for line in lines:
        value = line["quality"]
        by.setdefault(line["way"], {})[line["seed"]] = math.inf if value is None else value
    base, own = by.get("the default", {}), by.get(way, {})
    common = sorted(base.keys() & own.keys())
    logs = np.log([own[seed] / base[seed] for seed in common])
    if len(logs) < 2 or not np.isfinite(logs).all():
        return "diverges" if len(logs) else "–"
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / len(logs) ** 0.5
    low, middle, high = (math.exp(logs.mean() + part) for part in (-half, 0, half))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def page(lines: list[dict[str, Any]]) -> str:
    """The table of all stored runs."""
    cases = [line for line in lines if "case" in line]
    runs = [line for line in lines if "problem" in line]
    kinds = list(dict.fromkeys((r["problem"], r["optimizer"]) for r in runs))
    rows = [["way", "unsafe cases", *(f"{p}, {o}" for p, o in kinds)]]
    rows.append(["---"] * len(rows[0]))
    unsafe: list[str] = []
    kept: list[str] = []
    for way in WAYS:
        mine = [c for c in cases if c["way"] == way]
        taken = [c for c in mine if "refused" not in c]
        broken = [c for c in taken if not c["holds"]]
        ratios = [
            "1"
            if way == "the default"
            else ratio((r for r in runs if (r["problem"], r["optimizer"]) == kind), way)
            for kind in kinds
        ]
        refused = len(mine) - len(taken)
        if not broken:
            kept.append(f"`{way}`" if "=" in way else way)
            kept[-1] += f" (which refuses {refused})" if refused else ""
        rows.append([f"`{way}`" if "=" in way else way, f"{len(broken)} of {len(taken)}", *ratios])
        unsafe += [
            f"- `{way}`: {safety.CASES[c['case']].title}, {c['optimizer']}: "
            + ("not finite" if c["ratio"] is None else f"{c['ratio']:.3g}")
            for c in broken
        ]
        unsafe += [
            f"- `{way}`: {safety.CASES[c['case']].title}, {c['optimizer']}: refused"
            for c in mine
            if "refused" in c
        ]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    seeds = max((r["seed"] for r in runs), default=-1) + 1
    drawn = max((c["seeds"] for c in cases), default=0)
    return f"""# Which length, and what the heads get

Every unsafe case is kept by: {"; ".join(kept) or "none"}.

`scale` is the length of the update: that of the plain sum (the default), a geometric mean of the
multipliers of 1, or a largest multiplier of 1. `heads="plain"` gives the parameters that one task
alone reaches their own gradient, and the shared ones the weighted one; it measures in every step.

{table}

*Unsafe* are the cases of `benchmarks/safety.py` that end more than 10 % worse than the plain sum
({drawn} seeds). The other columns are the quality on validation data over that of the default with
the same seed and learning rate, with a 95 % interval ({seeds} seeds); below 1 is better.

Unsafe or refused:

{chr(10).join(unsafe) or "none"}

Measured by `python benchmarks/heads_and_scale.py` with torch
{torch.__version__.split("+")[0]} on the CPU. Nothing here is a time.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--cases", nargs="+", choices=list(safety.CASES), default=None)
    parser.add_argument("--steps", type=int, help="in place of each problem's own, for a trial")
    parser.add_argument("--out", type=Path, default=PAGE)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    store = asked.out.with_suffix(".jsonl")
    store.parent.mkdir(parents=True, exist_ok=True)
    lines = quality.stored(store)

    def keep(line: dict[str, Any]) -> None:
        lines.append(line)
        print(json.dumps(line), flush=True)
        with store.open("a") as file:
            file.write(json.dumps(line) + "\n")

    known = {(r["case"], r["optimizer"], r["way"], r["seeds"]) for r in lines if "case" in r}
    for name in asked.cases or safety.CASES:
        for optimizer in safety.CASES[name].optimizers:
            for way in WAYS:
                if (name, optimizer, way, asked.seeds) not in known:
                    keep(case_line(name, optimizer, way, asked.seeds))
    made = {(r["problem"], r["optimizer"], r["way"], r["seed"]) for r in lines if "problem" in r}
    for seed in range(asked.seeds):
        for name, optimizer, rate, decay, steps in quality.PROBLEMS:
            for way in WAYS:
                if name in asked.problems and (name, optimizer, way, seed) not in made:
                    problem = (name, optimizer, rate, decay, asked.steps or steps)
                    keep(problem_line(problem, way, seed))
    asked.out.write_text(page(lines), encoding="utf-8")
    print(page(lines))


if __name__ == "__main__":
    main()
