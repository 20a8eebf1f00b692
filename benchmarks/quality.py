"""Whether training goes as well with norms from a sketch as with exact ones.

    python benchmarks/quality.py                      # 5 seeds each; about 15 minutes
    python benchmarks/quality.py --table-only

Two problems: the gas turbine (three regressions in the units of the plant) and turbofan FD001
(``small``). Both train with ``inverse`` (``ExactNorms()`` under ``LogEMA(0.99)``) and with
``inverse-sketch`` (``SketchNorms()`` in every 4th step, which averages itself). The page compares
the weights at the end and the validation losses: differences of the means over the seeds beside the
spread of the seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from _gas_turbine import TARGETS, Net
from _gas_turbine import load as load_gas_turbine
from _report import DOCS, ROOT, table, write_page

import gaba
from gaba import turbofan

NAMES = {"exact": "inverse", "sketch": "inverse-sketch"}
METHODS = tuple(NAMES)
STEPS = 3000
DECAY = 0.99
LAST = 0.2
"""The share of the steps, the last ones, over which weights are averaged."""


def gas_turbine(method: str, seed: int, data_dir: str | None) -> dict[str, Any]:
    """One training: mean weights at the end, and the validation losses."""
    train, validation = load_gas_turbine(data_dir)
    torch.manual_seed(seed)
    net, own = Net(), torch.Generator().manual_seed(seed)
    balanced = gaba.methods.get(NAMES[method])
    if method == "sketch":
        balanced = balanced.replace(measure=gaba.measurement.SketchNorms(seed=seed))
    balancer = gaba.Balancer(TARGETS, net.trunk, balanced)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        balancer.backward(net.losses(train.draw(128, own)))
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        losses = {name: float(loss) for name, loss in net.losses(validation).items()}
    return {**weights_of(balancer.history), "validation": losses}


def fd001(method: str, seed: int, data_dir: str | None) -> dict[str, Any]:
    """One run of the application, kept in ``runs/quality``."""
    name = NAMES[method]
    folder = ROOT / "runs" / "quality" / f"FD001-{name}-{seed}"
    config = turbofan.TrainConfig(
        subset="FD001", method=name, seed=seed, run_dir=str(folder), data_dir=data_dir
    )
    best = turbofan.train(config, resume=(folder / "config.json").is_file()).best
    history = gaba.History.read(folder / "history.jsonl")
    validation = {"RMSE of RUL": best.rmse, "health error": 1 - best.accuracy}
    return {**weights_of(history), "validation": validation}


def weights_of(history: gaba.History) -> dict[str, Any]:
    """The mean of each weight over the last steps; and what it would be by norms smoothed alike.

    The sketch averages squares of norms, the default logarithms: where norms vary from step to step
    these are different means. ``"alike"`` takes the recorded norms of an exact run, in every 4th
    step, averages their squares as the sketch does, and inverts the root.
    """
    count = max(1, round(LAST * len(history)))
    found = {"weights": named(history, history.weights[-count:].mean(0))}
    if history.measured.all():
        total, mass, alike = np.zeros(len(history.tasks)), 0.0, []
        for norms in history.norms[::4]:
            total, mass = DECAY * total + (1 - DECAY) * norms**2, DECAY * mass + 1 - DECAY
            alike.append(gaba.rules.InverseNorm()(np.sqrt(total / mass)))
        found["alike"] = named(history, np.mean(alike[-max(1, count // 4) :], axis=0))
    return found


def named(history: gaba.History, values: np.ndarray) -> dict[str, float]:
    return dict(zip(history.tasks, values.tolist(), strict=True))


PROBLEMS: dict[str, Callable[[str, int, str | None], dict[str, Any]]] = {
    "gas turbine": gas_turbine,
    "turbofan FD001": fd001,
}


def one(problem: str, method: str, seed: int, data_dir: str | None) -> dict[str, Any]:
    torch.set_num_threads(1)
    found = PROBLEMS[problem](method, seed, data_dir)
    print(f"{problem}, {method}, seed {seed}: {found}", flush=True)
    return {"problem": problem, "method": method, "seed": seed, **found}


def page(found: Sequence[dict[str, Any]]) -> None:
    rows = []
    for problem in PROBLEMS:
        own = [record for record in found if record["problem"] == problem]
        exact, sketch = ([r for r in own if r["method"] == method] for method in METHODS)
        for name in exact[0]["weights"]:
            for kind, how in (("weights", "log norms averaged"), ("alike", "squares averaged")):
                what = f"weight of {name}, {how}"
                a, b = [r[kind][name] for r in exact], [r["weights"][name] for r in sketch]
                rows.append([problem, what, *compared(a, b)])
        for name in exact[0]["validation"]:
            a, b = ([r["validation"][name] for r in part] for part in (exact, sketch))
            rows.append([problem, f"validation, {name}", *compared(a, b)])
    seeds = len({record["seed"] for record in found})
    head = ["problem", "what", "exact", "sketch, every 4th step", "difference"]
    head += ["in standard deviations of a seed", "within one"]
    write_page(
        DOCS / "quality.md",
        "# Training by a sketch and by exact norms",
        f"Inverse weighting, {seeds} seeds, mean ± standard deviation. Weights are means over the "
        f"last {LAST:.0%} of the steps; the validation figures are mean squared errors in MWh² and "
        "(mg/m³)² on stretches of time that were held out, and the RMSE (cycles) and share of "
        "wrong health classes of the turbofan's chosen epoch on its validation engines.",
        "The default averages the logarithms of exact norms, the sketch the squares of what it "
        "sees. These are different means of norms that vary from step to step, so each weight is "
        "compared twice: with the weights of the exact runs, and with those that their recorded "
        "norms give when squares are averaged.",
        table(head, rows),
        "Measured by `python benchmarks/quality.py`; every run is in [quality.json](quality.json).",
    )


def compared(a: Sequence[float], b: Sequence[float]) -> list[str]:
    """Both means, their difference, and whether it is within one standard deviation of a seed."""
    apart = statistics.mean(b) - statistics.mean(a)
    noise = math.sqrt((statistics.variance(a) + statistics.variance(b)) / 2)
    return [
        *(f"{statistics.mean(v):.4g} ± {statistics.stdev(v):.2g}" for v in (a, b)),
        f"{apart:+.2g}",
        f"{abs(apart) / noise:.2f}",
        "yes" if abs(apart) <= noise else "**no**",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-dir", help="the folder with cmapss and gas_turbine")
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--table-only", action="store_true", help="train nothing")
    asked = parser.parse_args()
    path: Path = DOCS / "quality.json"
    if not asked.table_only:
        found = joblib.Parallel(n_jobs=asked.jobs)(
            joblib.delayed(one)(problem, method, seed, asked.data_dir)
            for problem in PROBLEMS
            for seed in asked.seeds
            for method in METHODS
        )
        path.write_text(json.dumps(found, indent=1) + "\n")
    page(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
