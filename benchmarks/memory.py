"""What knowing the norms takes in memory: the peak of each method above that of a plain step.

    python benchmarks/memory.py                   # all models and K, about 3 minutes
    python benchmarks/memory.py --resume          # what an interrupted run left out

The unit is one shared gradient, the bytes of θ: a plain step holds one of them at its end.
Memory does not depend on the speed of the machine nor on what else runs there.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from functools import partial

from _methods import METHODS, attempt, prepare, style
from _peak import peak_bytes
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

from _models import Batch, MultiTask, Spec

TASKS = (2, 3, 8, 40)
COMPARED = (
    *("published", "store", "stream", "gaba"),
    *("jd-rows", "jd-batched", "jd-autogram"),
)
METHOD_TITLES = {name: METHODS[name].title for name in COMPARED}
STREAM_LIMIT, DEFAULT_LIMIT = 1.1, 1.05


def peak(name: str, model: MultiTask, batch: Batch) -> int:
    """The peak of two periods of steps, from the making of the method on: what it keeps counts."""
    own = copy.deepcopy(model)

    def work() -> None:
        step = METHODS[name].make(own)
        for _ in range(max(2, METHODS[name].period)):
            step(batch)

    return peak_bytes(work)


def measure(spec: Spec, n_tasks: int, seconds: float) -> Record:
    """The peak of every method on one model with K tasks; those that the seconds allow."""
    deadline = time.perf_counter() + seconds
    model = spec.model(n_tasks)
    batch = spec.batches(n_tasks, spec.batch)(0)
    prepare(METHODS["plain"], model, batch)  # what is allocated once and for all is so now
    plain = peak("plain", model, batch)
    unit = model.shared_bytes()
    found: dict[str, Record] = {}
    for name in COMPARED:
        if time.perf_counter() > deadline:
            found[name] = {"status": "not measured", "note": "out of time"}
            continue
        tried = attempt(partial(peak, name, model, batch))
        found[name] = {"status": tried.status, "note": tried.reason}
        if tried.value is not None:
            found[name] |= {
                "note": "",
                "bytes": tried.value,
                "gradients": round((tried.value - plain) / unit, 4),
                "ratio": round(tried.value / plain, 4),
                "beyond": round((tried.value - unit) / plain, 4),
            }
    return {
        "batch": spec.batch,
        "shared_bytes": unit,
        "plain_bytes": plain,
        "methods": found,
    }


# ---- the report ---------------------------------------------------------------------------------


def cell(result: Record) -> str:
    if result["status"] != "runs":
        return str(result["status"])
    return f"{result['gradients']:+.2f} ({result['ratio']:.2f}×)"


def memory_table(records: Sequence[Record]) -> str:
    rows = [[title, *(cell(of(r, name)) for r in records)] for name, title in METHOD_TITLES.items()]
    plain = [f"{r['plain_bytes'] / r['shared_bytes']:.2f}" for r in records]
    rows.append(["plain step, in shared gradients", *plain])
    rows.append(["one shared gradient, MB", *(f"{r['shared_bytes'] / 1e6:.2f}" for r in records)])
    return table(["method", *(f"K = {r['tasks']}" for r in records)], rows)


def targets(records: Sequence[Record]) -> str:
    """Each promise beside what was measured."""
    rows: list[list[str]] = []
    for record in records:
        model = f"{titles(records)[record['model']]}, K = {record['tasks']}"
        for name, key, limit, said in (
            ("stream", "gradients", STREAM_LIMIT, f"≤ {STREAM_LIMIT:+.2f} shared gradients"),
            (
                "gaba",
                "beyond",
                DEFAULT_LIMIT,
                f"≤ {DEFAULT_LIMIT:.2f} × the plain step, and one shared gradient",
            ),
        ):
            result = of(record, name)
            if result["status"] == "runs":
                word = "yes" if result[key] <= limit else "**no**"
                rows.append([METHOD_TITLES[name], model, said, cell(result), word])
    return table(["what", "model", "promised", "measured", "reached"], rows)


def picture(records: Sequence[Record], opts: Options) -> None:
    figure, axes = panels(list(titles(records).values()))
    for axis, model in zip(axes, titles(records), strict=True):
        own = [r for r in records if r["model"] == model]
        for name in COMPARED:
            points = [(r["tasks"], of(r, name)) for r in own]
            points = [(k, m["gradients"]) for k, m in points if m["status"] == "runs"]
            axis.plot([k for k, _ in points], [above for _, above in points], **style(name))
    for axis in axes:
        ks = sorted({r["tasks"] for r in records})
        axis.set_xscale("log")
        axis.set_yscale("symlog", linthresh=1)
        axis.set_ylim(bottom=min(-0.2, axis.dataLim.ymin))
        axis.set_xticks(ks, [str(k) for k in ks])
        axis.minorticks_off()
        axis.set_yticks([0, 1, 3, 10, 40], ["0", "1", "3", "10", "40"])
        axis.set_xlabel("tasks K")
    axes[0].set_ylabel("peak above the plain step,\nin shared gradients")
    save(figure, axes, opts.out / "memory.png")


def write(records: Sequence[Record], opts: Options) -> None:
    parts = [
        "# What a step takes in memory",
        "The peak of the memory that PyTorch's CPU allocator hands out during the steps of each "
        "method (forward pass, gradients, and what the method keeps from step to step), above that "
        "of plain steps of the same model and batch, in units of one gradient of the shared "
        "parameters; in brackets the ratio of the two peaks. Parameters and inputs are there in "
        "both and count in neither. Activations count, so that one shared gradient is a smaller "
        f"part of the step the larger the batch is. {where(records)}",
        "More than one pass through the shared part keeps the activations that a plain backward "
        "pass lets go of on its way down. The published loop, which holds one task's gradient "
        "beside the sum, shows what that makes.",
        "![Peak memory over K](memory.png)",
        "## What was promised",
        targets(records),
    ]
    for model, title in titles(records).items():
        own = [r for r in records if r["model"] == model]
        sizes = ", ".join(dict.fromkeys(str(r["batch"]) for r in own))
        parts += [f"## {title}, batch {sizes}", memory_table(own), notes(own, METHOD_TITLES)]
    parts.append("Made by `python benchmarks/memory.py`; the figures are in `memory.json`.")
    picture(records, opts)
    write_page(opts.out / "memory.md", *parts)


def main() -> None:
    opts = options(__doc__, budget=170, tasks=TASKS)
    records = Results("memory", opts).measure(
        lambda name, k, spec, seconds: measure(spec, k, math.inf if opts.quick else seconds),
        share=lambda k: 4 + k,
    )
    if records:
        write(records, opts)


if __name__ == "__main__":
    main()
