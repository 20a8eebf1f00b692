"""How far the cheap norms are from the exact ones after some hundred steps of training.

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
from gaba.measurement import FeatureNorms, LastLayerNorms, Measurement, SketchNorms

TASKS = (3,)
STEPS = 500
DECAY = 0.99
SEEDS = 5
TRIAL_STEPS = 5
"""Steps after which it is known that a measurement runs on a model."""
LIMIT = 0.10


@final
@dataclass(frozen=True)
class Watcher:
    """One way of measuring that is compared with exact norms.

    Attributes:
        title: what it is called in the tables.
        measure: its measurement.
        every: it measures in every n-th step.
    """

    title: str
    measure: Measurement
    every: int = 1

    @property
    def smoothed(self) -> bool:
        """Whether it reports the root of squares smoothed over its measured steps."""
        return self.measure.averages


def _sketch(every: int) -> Watcher:
    return Watcher(f"`SketchNorms()`, `every={every}`", SketchNorms(decay=DECAY), every)


WATCHERS: Mapping[str, Watcher] = {
    "sketch-1": _sketch(1),
    "sketch-4": _sketch(4),
    "features-50": Watcher("`FeatureNorms(calibrate_every=50)`", FeatureNorms(calibrate_every=50)),
    "features": Watcher("`FeatureNorms()`", FeatureNorms()),
    "last-layer": Watcher("`LastLayerNorms()`", LastLayerNorms()),
}
WATCHER_TITLES = {name: watcher.title for name, watcher in WATCHERS.items()}


def smooth_squares(norms: np.ndarray, every: int) -> np.ndarray:
    """Norms (N, K) → the root of their squares smoothed as the sketch does it, debiased (N, K)."""
    total, mass = np.zeros(norms.shape[1]), 0.0
    found = np.empty_like(norms)
    for step, row in enumerate(norms):
        if step % every == 0:
            total = DECAY * total + (1 - DECAY) * row**2
            mass = DECAY * mass + (1 - DECAY)
        found[step] = np.sqrt(total / mass)
    return found


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
        alike: of a smoothed one, against exact norms smoothed alike.
        of_exact: of exact norms smoothed alike, against those of that step.
        ratio: the largest exact norm over the smallest, in the median.
    """

    at_step: dict[str, float]
    alike: dict[str, float]
    of_exact: dict[str, float]
    ratio: float


def train(spec: Spec, n_tasks: int, seed: int, steps: int, wanted: Sequence[str]) -> Trained:
    """Train for ``steps`` steps while those ``wanted`` watch the losses."""
    model = spec.model(n_tasks, seed)
    batches = spec.batches(n_tasks, spec.training_batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inverse = gaba.methods.get("inverse")
    judge = gaba.Balancer(model.tasks, model.trunk, inverse)
    watching = {
        name: gaba.Balancer(
            model.tasks,
            model.trunk,
            inverse.replace(measure=WATCHERS[name].measure, every=WATCHERS[name].every),
        )
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
    alike: dict[str, float] = {}
    of_exact: dict[str, float] = {}
    for name, balancer in watching.items():
        history, watcher = balancer.history, WATCHERS[name]
        if not history.measured[:: watcher.every].all():
            raise RuntimeError(f"{watcher.title} did not measure in every {watcher.every}th step")
        seen = last[last % watcher.every == 0]
        estimate = history.norms[seen]
        at_step[name] = float(squared_errors(estimate, exact[seen]).mean())
        if watcher.smoothed:
            smooth = smooth_squares(exact, watcher.every)[seen]
            alike[name] = float(squared_errors(estimate, smooth).mean())
            of_exact[name] = float(squared_errors(smooth, exact[seen]).mean())
    apart = exact[last].max(1) / exact[last].min(1)
    return Trained(at_step, alike, of_exact, float(np.median(apart)))


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
        if WATCHERS[name].smoothed:
            found[name]["alike"] = root([run.alike[name] for run in runs])
            found[name]["of_exact"] = root([run.of_exact[name] for run in runs])
            found[name]["alike_seeds"] = [round(run.alike[name] ** 0.5, 4) for run in runs]
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


def targets(records: Sequence[Record]) -> str:
    """The promise of the sketch beside what was measured."""
    rows = []
    for record in records:
        for name, watcher in WATCHERS.items():
            found = of(record, name)
            if not watcher.smoothed or found["status"] != "runs":
                continue
            rows.append(
                [
                    watcher.title,
                    f"{titles(records)[record['model']]}, K = {record['tasks']}",
                    f"≤ {100 * LIMIT:.0f} %",
                    percent(found["alike"], found["alike_seeds"]),
                    "yes" if found["alike"] <= LIMIT else "**no**",
                    percent(found["error"], found["seeds"]),
                    percent(found["of_exact"], ()),
                ]
            )
    head = ["what", "model", "promised", "against exact norms smoothed alike", "reached"]
    later = ["against the exact norms of that step", "the same of exact norms smoothed alike"]
    return table([*head, *later], rows)


def picture(records: Sequence[Record], opts: Options) -> None:
    figure, axes = panels(list(titles(records).values()))
    for axis, model in zip(axes, titles(records), strict=True):
        own = [r for r in records if r["model"] == model]
        for place, (name, watcher) in enumerate(WATCHERS.items()):
            for i, record in enumerate(own):
                found = of(record, name)
                if found["status"] != "runs":
                    continue
                key = "alike" if watcher.smoothed else "error"
                axis.bar(
                    i + (place - len(WATCHERS) / 2 + 0.5) * 0.16,
                    100 * found[key],
                    width=0.15,
                    color=COLOURS[place],
                    label=watcher.title,
                )
        axis.axhline(100 * LIMIT, color="#000000", linewidth=0.8, linestyle="--")
        axis.set_yscale("log")
        axis.set_xticks(range(len(own)), [f"K = {r['tasks']}" for r in own])
    axes[0].set_ylabel("error of norm ratios, RMS, %")
    axes[0].set_yticks([1, 3, 10, 30, 100, 300, 1000], ["1", "3", "10", "30", "100", "300", "1000"])
    save(figure, axes, opts.out / "norm_error.png")


def write(records: Sequence[Record], opts: Options) -> None:
    lines = [notes([record], WATCHER_TITLES) for record in records]
    parts = [
        "# How far the cheap norms are from the exact ones",
        "Each model is trained by AdamW (1e-3) under exact norms and `InverseNorm()`, on a fresh "
        "synthetic batch each step, while the other measurements watch the same losses. In the "
        "last fifth of the steps, for every ordered pair of tasks: the ratio of their norms over "
        "the exact ratio, minus 1; root mean square over pairs, steps and seeds (smallest and "
        f"largest seed in brackets). {where(records)}",
        "![Errors of the norm ratios](norm_error.png)",
        "## What was promised",
        "The sketch reports the root of smoothed squares, so it is held against exact squares "
        "smoothed in the same way: that is its own error. Against the exact norms of that very "
        "step the noise of the batch and the lag of the smoothing come on top; the last column "
        "says how much these two make without any sketch.",
        targets(records),
        "## Against the exact norms of that step",
        "*Norms apart* is the largest exact norm over the smallest in the same steps, in the "
        "median. The picture shows the sketches against exact norms smoothed alike and the others "
        "against those of that step.",
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
