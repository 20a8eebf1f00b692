"""Does measuring along the update cost quality? The default beside exact equal shares.

    python benchmarks/tracked_quality.py                 # resumes what was interrupted
    python benchmarks/tracked_quality.py --seeds 3 --methods gaba equal-share
    python benchmarks/tracked_quality.py --table-only

Each problem is trained at its short length, with one learning rate for all methods (that which was
tuned for exact equal shares), and the quality on validation data is compared seed by seed: the
ratio to that of exact ``equal-share``, whose every step costs K backward passes. Lower is
better. Writes ``docs/benchmarks/tracked_quality.md`` and its ``.jsonl``, one line a run.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy import stats

import gaba
from gaba import methods
from gaba.bench import trial as trials

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "tracked_quality.md"
PROBLEMS: tuple[tuple[str, str, float, float, int], ...] = (
    ("conflict-toy", "adam", 0.1, 0.0, 500),
    ("synthetic-40", "adam", 0.01, 0.0, 300),
    ("gas-turbine-time", "adam", 0.01, 0.0, 600),
    ("gas-turbine-time", "sgd", 0.1, 0.0, 600),
    ("multi-mnist", "adam", 0.01, 0.0, 400),
    ("pinn-poisson", "adam", 0.01, 0.0, 600),
    ("pinn-burgers", "adam", 0.01, 0.0, 600),
    ("turbofan-fd001", "adam", 1e-3, 1e-4, 200),
)
"""Problem, optimizer, learning rate, weight decay, steps."""
METHODS = ("gaba", "equal-share", "uniform", "gaba@limit=32", "gaba@limit=1000")
"""A name of the catalogue, after each @ a setting."""
BASE = "equal-share"


def balancer(trial: trials.Trial, problem: Any, session: Any, optimizer: Any) -> gaba.Balancer:
    """The Balancer of a method with settings."""
    name, *settings = trial.method.split("@")
    pairs = (setting.split("=") for setting in settings)
    changed: dict[str, Any] = {key: _value(text) for key, text in pairs}
    method = methods.get(name, problem.tasks, session.shared, **changed)
    return gaba.Balancer(problem.tasks, session.shared, method)


def run(problem: tuple[str, str, float, float, int], method: str, seed: int) -> dict[str, Any]:
    """One training."""
    name, optimizer, rate, decay, steps = problem
    made = trials.Trial(name, method, optimizer, rate, decay, seed, steps)  # type: ignore[arg-type]
    with mock.patch.object(trials, "_balancer", balancer):
        result = trials.run_trial(made)
    return {
        "problem": name,
        "optimizer": optimizer,
        "method": method,
        "seed": seed,
        "steps": steps,
        "quality": _plain(result["quality"]),
        "imbalance": _plain(result["imbalance_median"]),
    }


def _value(text: str) -> float | str | None:
    """64, or None, or a word."""
    if text == "None":
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def ratios(
    found: Mapping[str, Mapping[int, float]], method: str
) -> tuple[float, float, float, int]:
    """The geometric mean of the ratios to the base over common seeds, its 95 % interval, n."""
    common = sorted(set(found.get(method, {})) & set(found[BASE]))
    logs = np.log([found[method][seed] / found[BASE][seed] for seed in common])
    if len(logs) < 2:
        return float(np.exp(logs.mean())) if len(logs) else math.nan, math.nan, math.nan, len(logs)
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / len(logs) ** 0.5
    mean = logs.mean()
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half), len(logs)


def page(lines: list[dict[str, Any]]) -> str:
    """The table of all stored runs."""
    by: dict[str, dict[str, dict[int, float]]] = {}
    for line in lines:
        key = f"{line['problem']}, {line['optimizer']}, {line['steps']} steps"
        quality = line["quality"] if line["quality"] is not None else math.inf
        by.setdefault(key, {}).setdefault(line["method"], {})[line["seed"]] = quality
    made = {line["method"] for line in lines}
    names = [m for m in METHODS if m != BASE and m in made]
    rows = [["problem", f"{BASE} (mean)", *names], ["---"] * (len(names) + 2)]
    uppers: list[float] = []
    means: list[float] = []
    for key, found in by.items():
        if BASE not in found:
            continue
        cells = [key, f"{np.mean(list(found[BASE].values())):.4f}"]
        for name in names:
            mean, low, high, n = ratios(found, name)
            cells.append("–" if not n else f"{mean:.3f} ({low:.3f} to {high:.3f}; {n})")
            if name == "gaba":
                uppers.append(high)
                means.append(mean)
        rows.append(cells)
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    within = sum(u <= 1.03 for u in uppers)
    near = sum(mean <= 1.03 for mean in means)
    return f"""# What measuring along the update costs in quality

On {near} of {len(means)} problems the default ends at most 3 % behind exact equal shares in the
mean over the seeds; the largest ratio is {max(means):.3f}. By the upper end of the 95 % interval
it is within 3 % on {within} of {len(uppers)}. Exact equal shares cost K backward passes a step.

Measured by `python benchmarks/tracked_quality.py`.

Ratios of the validation quality to that of exact `{BASE}` with the same seed and the same learning
rate; below 1 is better. In brackets the 95 % interval (t distribution of the logarithms) and the
number of seeds. `gaba` is the default; `uniform` is the plain sum.

{table}

The learning rate is that which was tuned for exact equal shares, so the comparison favors them. The
runs are short. Test data decide nothing here.
"""


def stored(store: Path) -> list[dict[str, Any]]:
    """The runs so far."""
    return [json.loads(line) for line in store.read_text().splitlines()] if store.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--problems", nargs="+", default=[name for name, *_ in PROBLEMS])
    parser.add_argument("--steps", type=int, help="in place of each problem's own, for a trial")
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument("--out", type=Path, default=PAGE)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    store = asked.out.with_suffix(".jsonl")
    store.parent.mkdir(parents=True, exist_ok=True)
    lines = stored(store)
    done = {(r["problem"], r["optimizer"], r["method"], r["seed"]) for r in lines}
    for seed in () if asked.table_only else range(asked.seeds):
        for problem in PROBLEMS:
            for method in asked.methods:
                if problem[0] in asked.problems and (*problem[:2], method, seed) not in done:
                    chosen = (*problem[:4], asked.steps or problem[4])
                    lines.append(run(chosen, method, seed))
                    with store.open("a") as file:
                        file.write(json.dumps(lines[-1]) + "\n")
    asked.out.write_text(page(lines))
    print(page(lines))


if __name__ == "__main__":
    main()
