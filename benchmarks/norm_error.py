"""How far norms at the output or at one layer are from the exact ones after some hundred steps.

    python benchmarks/norm_error.py                   # all models, about 6 minutes
    python benchmarks/norm_error.py --resume          # what an interrupted run left out
    python benchmarks/norm_error.py --models mlp --tasks 2 8

A model is trained by AdamW under exact norms and the inverse weighting, on a fresh batch each step,
while the others watch the same losses. In the last fifth of the steps the ratios of the norms of
each pair of tasks are compared with the exact ones. Accuracy does not depend on the machine, but on
how many seeds there is time for.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np
import torch
from _methods import attempt
from _report import (
    COLOURS,
    Options,
    Record,
    Results,
    notes,
    of,
    options,
    panels,
    save,
    table,
    titles,
    where,
    write_page,
)

import gaba
from _models import Spec
from gaba.measurement import ExactNorms, Measurement, OutputNorms

TASKS = (3,)
STEPS = 500
SEEDS = 5
TRIAL_STEPS = 5
"""Steps after which it is known that a measurement runs on a model."""


WATCHERS: Mapping[str, Measurement] = {
    "output": OutputNorms(per_item=False),
    "layer": ExactNorms(layer="last"),
}
WATCHER_TITLES = {name: f"`{measure!r}`" for name, measure in WATCHERS.items()}


def squared_errors(estimate: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """((ĝ_k/ĝ_l)/(g_k/g_l) − 1)² of all ordered pairs k ≠ l: (N, K) twice → (N, K (K−1))."""
    factor = estimate / exact
    pairs = factor[:, :, None] / factor[:, None, :]
    apart = ~np.eye(estimate.shape[1], dtype=bool)
    return (pairs[:, apart] - 1) ** 2


@final
@dataclass(frozen=True)
class Trained:
    """One training: mean squared errors by watcher, and how far the norms are apart.

    Attributes:
        at_step: against the exact norms of that step.
        ratio: the largest exact norm over the smallest, in the median.
    """

    at_step: dict[str, float]
    ratio: float


def train(spec: Spec, n_tasks: int, seed: int, steps: int, wanted: Sequence[str]) -> Trained:
    """Train for ``steps`` steps while those ``wanted`` watch the losses."""
    model = spec.model(n_tasks, seed)
    batches = spec.batches(n_tasks, spec.training_batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inverse = gaba.methods.get("inverse")
    judge = gaba.Balancer(model.tasks, model.trunk, inverse)
    watching = {
        name: gaba.Balancer(model.tasks, model.trunk, inverse.replace(measure=WATCHERS[name]))
        for name in wanted
    }
    for step in range(steps):
        _, losses = model(batches(steps * seed + step))
        for balancer in watching.values():
            balancer(losses)  # it measures; the weighted loss that it gives is let go
        optimizer.zero_grad()
        judge.backward(losses)
        optimizer.step()
    exact = judge.history.norms
    last = np.arange(steps - steps // 5, steps)
    at_step: dict[str, float] = {}
    for name, balancer in watching.items():
        if not balancer.history.measured.all():
            raise RuntimeError(f"{WATCHER_TITLES[name]} did not measure in every step")
        at_step[name] = float(squared_errors(balancer.history.norms[last], exact[last]).mean())
    apart = exact[last].max(1) / exact[last].min(1)
    return Trained(at_step, float(np.median(apart)))


def measure(spec: Spec, n_tasks: int, seconds: float, steps: int) -> Record:
    """As many seeds as the seconds allow, at least one: root mean squares over all of them."""
    found: dict[str, Record] = {}
    wanted = []
    for name in WATCHERS:
        tried = attempt(partial(train, spec, n_tasks, 0, TRIAL_STEPS, [name]))
        if tried.value is None:
            found[name] = {"status": tried.status, "note": tried.reason}
        else:
            found[name] = {"status": "runs", "note": tried.reason}
            wanted.append(name)
    started = time.monotonic()
    runs: list[Trained] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were heard in the first steps, and are noted
        for seed in range(SEEDS):
            spent = time.monotonic() - started
            if runs and spent * (1 + 1 / len(runs)) > seconds:
                break
            runs.append(train(spec, n_tasks, seed, steps, wanted))
    for name in wanted:
        found[name] |= {
            "error": root([run.at_step[name] for run in runs]),
            "seeds": [round(run.at_step[name] ** 0.5, 4) for run in runs],
        }
    return {
        "batch": spec.training_batch,
        "steps": steps,
        "seeds": len(runs),
        "norm_ratio": round(statistics.median(run.ratio for run in runs), 2),
        "methods": found,
    }


def root(squares: Sequence[float]) -> float:
    return round(statistics.mean(squares) ** 0.5, 4)


# ---- the report ---------------------------------------------------------------------------------


def percent(value: float, seeds: Sequence[float]) -> str:
    spread = f" ({100 * min(seeds):.1f}–{100 * max(seeds):.1f})" if len(seeds) > 1 else ""
    return f"{100 * value:.1f} %{spread}"


def error_table(records: Sequence[Record]) -> str:
    head = ["model", "K", "batch", "steps", "seeds", "norms apart", *WATCHER_TITLES.values()]
    rows = []
    for record in records:
        cells = [titles(records)[record["model"]]]
        cells += [str(record[key]) for key in ("tasks", "batch", "steps", "seeds")]
        cells.append(f"{record['norm_ratio']:.0f}×")
        for name in WATCHERS:
            found = of(record, name)
            runs = found["status"] == "runs"
            cells.append(percent(found["error"], found["seeds"]) if runs else found["status"])
        rows.append(cells)
    return table(head, rows)


def picture(records: Sequence[Record], opts: Options) -> None:
    figure, axes = panels(list(titles(records).values()))
    for axis, model in zip(axes, titles(records), strict=True):
        own = [r for r in records if r["model"] == model]
        for place, name in enumerate(WATCHERS):
            for i, record in enumerate(own):
                found = of(record, name)
                if found["status"] != "runs":
                    continue
                axis.bar(
                    i + (place - len(WATCHERS) / 2 + 0.5) * 0.16,
                    100 * found["error"],
                    width=0.15,
                    color=COLOURS[place],
                    label=WATCHER_TITLES[name],
                )
        axis.set_yscale("log")
        axis.set_xticks(range(len(own)), [f"K = {r['tasks']}" for r in own])
    axes[0].set_ylabel("error of norm ratios, RMS, %")
    axes[0].set_yticks([1, 3, 10, 30, 100, 300, 1000], ["1", "3", "10", "30", "100", "300", "1000"])
    save(figure, axes, opts.out / "norm_error.png")


def write(records: Sequence[Record], opts: Options) -> None:
    lines = [notes([record], WATCHER_TITLES) for record in records]
    parts = [
        "# How far norms elsewhere are from those of all shared parameters",
        "Each model is trained by AdamW (1e-3) under exact norms and `InverseNorm()`, on a fresh "
        "synthetic batch each step, while the other measurements watch the same losses. In the "
        "last fifth of the steps, for every ordered pair of tasks: the ratio of their norms over "
        "the exact ratio, minus 1; root mean square over pairs, steps and seeds (smallest and "
        f"largest seed in brackets). {where(records)}",
        "![Errors of the norm ratios](norm_error.png)",
        "*Norms apart* is the largest exact norm over the smallest in the same steps, in the "
        "median.",
        error_table(records),
        "\n".join(dict.fromkeys(line for line in lines if line)),
        "Made by `python benchmarks/norm_error.py`; the figures are in `norm_error.json`.",
    ]
    picture(records, opts)
    write_page(opts.out / "norm_error.md", *parts)


def main() -> None:
    opts = options(__doc__, budget=350, tasks=TASKS)
    steps = 25 if opts.quick else STEPS
    records = Results("norm_error", opts).measure(
        lambda name, k, spec, seconds: measure(spec, k, seconds, steps), share=lambda k: 4 + k
    )
    if records:
        write(records, opts)


if __name__ == "__main__":
    main()
