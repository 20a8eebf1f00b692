"""What knowing the norms costs: a whole step of each method over a plain mean-loss step.

    python benchmarks/step_cost.py                      # all models and K, about 8 minutes
    python benchmarks/step_cost.py --resume             # what an interrupted run left out
    python benchmarks/step_cost.py --models mlp --tasks 2 8 --budget 60

A step is ``zero_grad``, forward pass and gradients, without the optimizer. Each repetition times a
method and the plain step next to it, in an order that alternates, and gives one ratio; those of one
method are spread over the run, between those of the others. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import gc
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

from _methods import METHODS, OTHERS, OURS, PEERS, Method, Ready, prepare, style
from _report import (
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

from _models import Batch, Spec

TASKS = (2, 3, 8, 40)
METHOD_TITLES = {name: method.title for name, method in METHODS.items()}
CHEAP = 4
"""A block of a method whose every step costs the same has at most as many steps as this."""


@final
@dataclass
class Timed:
    """The repetitions of one method: each a block of steps, and as many plain steps beside it."""

    method: Method
    ready: Ready
    steps: int
    seconds: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    spent: float = 0.0

    def repeat(self, plain: Ready, batch: Batch) -> None:
        """One more repetition."""
        started = time.perf_counter()
        if len(self.seconds) % 2:
            own, beside = block(self.ready, batch, self.steps), block(plain, batch, self.steps)
        else:
            beside, own = block(plain, batch, self.steps), block(self.ready, batch, self.steps)
        self.seconds.append(own)
        self.plain.append(beside)
        self.spent += time.perf_counter() - started

    def result(self) -> Record:
        """Medians with quartiles, of the ratios and in milliseconds a step."""
        ratios = [own / beside for own, beside in zip(self.seconds, self.plain, strict=True)]
        low, middle, high = quartiles(ratios)
        return {
            "status": "runs",
            "note": self.ready.reason,
            "ratio": round(middle, 4),
            "quartiles": [round(low, 4), round(high, 4)],
            "repetitions": len(ratios),
            "steps": self.steps,
            "ms": round(1e3 * statistics.median(self.seconds), 3),
            "plain_ms": round(1e3 * statistics.median(self.plain), 3),
        }


def block(ready: Ready, batch: Batch, steps: int) -> float:
    """Seconds a step, on average over ``steps`` steps."""
    assert ready.step is not None
    started = time.perf_counter()
    for _ in range(steps):
        ready.step(batch)
    return (time.perf_counter() - started) / steps


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def measure(spec: Spec, n_tasks: int, seconds: float, rounds: int) -> Record:
    """Every method on one model with K tasks.

    After ``rounds`` rounds of all methods (fewer only if they take twice the seconds), the method
    that has had the least time goes next until the seconds are over: cheap ones, where percents
    matter, repeat more often.
    """
    deadline = time.perf_counter() + seconds
    model = spec.model(n_tasks)
    batch = spec.batches(n_tasks, spec.batch)(0)
    found: dict[str, Any] = {}
    runs: dict[str, Timed] = {}
    plain = prepare(METHODS["plain"], model, batch)
    for name, method in METHODS.items():
        if name == "plain":
            continue
        started = time.perf_counter()
        ready = prepare(method, model, batch)
        took = (time.perf_counter() - started) / method.period
        if ready.step is None:
            found[name] = {"status": ready.status, "note": ready.reason}
        else:
            short = max(1, min(CHEAP, round(seconds / 200 / max(took, 1e-6))))
            runs[name] = Timed(method, ready, method.period if method.period > 1 else short)
    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they were heard in the first steps, and are noted
            for number in range(rounds):
                if number and time.perf_counter() > deadline + seconds:
                    break
                names = list(runs)
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    runs[name].repeat(plain, batch)
            while runs and time.perf_counter() < deadline:
                min(runs.values(), key=lambda timed: timed.spent).repeat(plain, batch)
    finally:
        gc.enable()
    found |= {name: timed.result() for name, timed in runs.items()}
    return {
        "batch": spec.batch,
        "methods": {name: found[name] for name in METHODS if name in found},
    }


# ---- the report ---------------------------------------------------------------------------------


def cell(result: Record) -> str:
    if result["status"] != "runs":
        return str(result["status"])
    low, high = result["quartiles"]
    return f"{result['ratio']:.2f} ({low:.2f}–{high:.2f}; {result['repetitions']})"


def cost_table(records: Sequence[Record]) -> str:
    head = [f"K = {r['tasks']}" for r in records]
    rows = [
        [method.title, *(cell(of(r, name)) for r in records)]
        for name, method in METHODS.items()
        if name != "plain"
    ]
    plain = [statistics.median(m["plain_ms"] for m in runs(r).values()) for r in records]
    rows.append(["plain step, ms", *(f"{ms:.1f}" for ms in plain)])
    return table(["method", *head], rows)


def runs(record: Record) -> dict[str, Record]:
    return {name: m for name, m in record["methods"].items() if m["status"] == "runs"}


def targets(records: Sequence[Record]) -> str:
    """Each promise beside what was measured."""
    rows: list[list[str]] = []

    def promise(what: str, record: Record, result: Record, limit: float, said: str) -> None:
        reached = result["quartiles"][0] <= limit
        sure = result["quartiles"][1] <= limit
        word = "yes" if sure else "within the spread" if reached else "**no**"
        model = f"{titles(records)[record['model']]}, K = {record['tasks']}"
        rows.append([what, model, said, cell(result), word])

    for record in records:
        own, k = runs(record), record["tasks"]
        peers = [own[name]["ratio"] for name in PEERS if name in own]
        if k == 2 and "store" in own and record["model"].startswith("turbofan"):
            promise("exact", record, own["store"], 1.6, "≤ 1.60")
        if "store" in own and peers:
            least = min(peers)
            promise("exact", record, own["store"], least, f"≤ {least:.2f} (TorchJD's best)")
        if k == 2 and "every-10" in own:
            promise(METHODS["every-10"].title, record, own["every-10"], 1.12, "≤ 1.12")
    return table(["what", "model", "promised", "measured", "reached"], rows)


def picture(records: Sequence[Record], opts: Options) -> None:
    figure, axes = panels(list(titles(records).values()))
    for axis, model in zip(axes, titles(records), strict=True):
        own = [r for r in records if r["model"] == model]
        for name in (*OURS, *OTHERS):
            points = [(r["tasks"], m) for r in own if (m := runs(r).get(name))]
            axis.plot([k for k, _ in points], [m["ratio"] for _, m in points], **style(name))
        axis.axhline(1, color="#000000", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_yscale("log")
        ks = sorted({r["tasks"] for r in own})
        axis.set_xticks(ks, [str(k) for k in ks])
        axis.minorticks_off()
        axis.set_yticks([1, 1.5, 2, 3, 5, 10, 20], ["1", "1.5", "2", "3", "5", "10", "20"])
        axis.set_xlabel("tasks K")
    axes[0].set_ylabel("whole step / plain step")
    save(figure, axes, opts.out / "step_cost.png")


def write(records: Sequence[Record], opts: Options) -> None:
    parts = [
        "# What a step costs",
        "A whole step (`zero_grad`, forward pass, gradients; no optimizer) of each method over a "
        "plain mean-loss step timed beside it: median of the paired ratios (quartiles; number of "
        "repetitions). Every method has a copy of the same model. Methods with `every=8` "
        "and `every=10` are averaged over 8 and 10 steps. TorchJD combines by the mean "
        "(`mtl_backward`) or by the diagonal of its Gramian (autogram), so that the price is that "
        f"of the gradients. {where(records)}",
        "![Step cost over K](step_cost.png)",
        "## What was promised",
        targets(records),
        "Exact norms are K passes through the shared part here as in TorchJD: the two differ by a "
        "few per cent either way.",
    ]
    for model, title in titles(records).items():
        own = [r for r in records if r["model"] == model]
        sizes = ", ".join(dict.fromkeys(str(r["batch"]) for r in own))
        parts += [f"## {title}, batch {sizes}", cost_table(own), notes(own, METHOD_TITLES)]
    parts.append(
        "Made by `python benchmarks/step_cost.py --threads 1`; the figures are in `step_cost.json`."
    )
    picture(records, opts)
    write_page(opts.out / "step_cost.md", *parts)


def main() -> None:
    opts = options(__doc__, budget=470, tasks=TASKS)
    results = Results("step_cost", opts)
    rounds = 1 if opts.quick else 3
    records = results.measure(
        lambda name, k, spec, seconds: measure(spec, k, seconds, rounds),
        share=lambda k: 25 + k,
    )
    if records:
        write(records, opts)


if __name__ == "__main__":
    main()
