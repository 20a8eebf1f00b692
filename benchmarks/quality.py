"""Whether training goes as well with the default as with exact norms in every step.

    python benchmarks/quality.py                      # 5 seeds each; about 15 minutes
    python benchmarks/quality.py --table-only

Two problems: the gas turbine (three regressions in the units of the plant) and turbofan FD001
(``small``). Both train with ``inverse`` (``ExactNorms()`` under ``LogEMA(0.99)``) and with
``gaba`` (``Tracked()`` along the update). The page compares the weights at the end and the
validation losses: differences of the means over the seeds beside the spread of the seeds.
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
import torch
from _gas_turbine import TARGETS, Net
from _gas_turbine import load as load_gas_turbine
from _report import DOCS, ROOT, table, write_page

import gaba
from gaba import turbofan

METHODS = ("inverse", "gaba")
STEPS = 3000
LAST = 0.2
"""The share of the steps, the last ones, over which weights are averaged."""


def gas_turbine(method: str, seed: int, data_dir: str | None) -> dict[str, Any]:
    """One training: mean weights at the end, and the validation losses."""
    train, validation = load_gas_turbine(data_dir)
    torch.manual_seed(seed)
    net, own = Net(), torch.Generator().manual_seed(seed)
    balancer = gaba.Balancer(TARGETS, net.trunk, method)
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
    folder = ROOT / "runs" / "quality" / f"FD001-{method}-{seed}"
    config = turbofan.TrainConfig(
        subset="FD001", method=method, seed=seed, run_dir=str(folder), data_dir=data_dir
    )
    best = turbofan.train(config, resume=(folder / "config.json").is_file()).best
    history = gaba.History.read(folder / "history.jsonl")
    validation = {"RMSE of RUL": best.rmse, "health error": 1 - best.accuracy}
    return {**weights_of(history), "validation": validation}


def weights_of(history: gaba.History) -> dict[str, Any]:
    """The mean of each weight over the last steps."""
    count = max(1, round(LAST * len(history)))
    mean = history.weights[-count:].mean(0)
    return {"weights": dict(zip(history.tasks, mean.tolist(), strict=True))}


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
        parts = [[r for r in own if r["method"] == method] for method in METHODS]
        for kind, what in (("weights", "weight of"), ("validation", "validation,")):
            for name in parts[0][0][kind]:
                a, b = ([r[kind][name] for r in part] for part in parts)
                rows.append([problem, f"{what} {name}", *compared(a, b)])
    seeds = len({record["seed"] for record in found})
    head = ["problem", "what", *METHODS, "difference"]
    head += ["in standard deviations of a seed", "within one"]
    write_page(
        DOCS / "quality.md",
        "# Training by the default and by exact norms",
        f"Inverse weighting, {seeds} seeds, mean ± standard deviation. Weights are means over the "
        f"last {LAST:.0%} of the steps; the validation figures are mean squared errors in MWh² and "
        "(mg/m³)² on stretches of time that were held out, and the RMSE (cycles) and share of "
        "wrong health classes of the turbofan's chosen epoch on its validation engines.",
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
