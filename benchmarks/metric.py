"""How different the pulls look to plain SGD and to the optimizer.

    python benchmarks/metric.py                       # turbofan, gas turbine, transformer; 3 min
    python benchmarks/metric.py --table-only

AdamW trains each model under uniform weights. In every tenth step the norms are measured twice on
the same losses: ‖∇L_k‖, and ‖P ∇L_k‖ with P the steps that the optimizer takes. The figures do not
depend on the machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from _gas_turbine import Net
from _gas_turbine import load as load_gas_turbine
from _report import DOCS, table, write_page
from torch import Tensor, nn

import gaba
from _models import FULL
from gaba import turbofan

STEPS = 500
EVERY = 10
LAST = 0.4
"""The share of the steps, the last ones, over which medians are taken."""

Losses = Callable[[], dict[str, Tensor]]
Problem = tuple[str, nn.Module, nn.Module, Losses]


def problems(data_dir: str | None) -> Iterator[Problem]:
    """Name, model, shared part, and the losses of a fresh batch."""
    for subset in ("FD001", "FD002"):
        yield _turbofan(subset, data_dir)
    torch.manual_seed(0)
    rows, _ = load_gas_turbine(data_dir)
    net, own = Net(), torch.Generator().manual_seed(0)
    yield "gas turbine", net, net.trunk, lambda: net.losses(rows.draw(128, own))
    spec = FULL["vit"]
    model = spec.model(3)
    batches = spec.batches(3, spec.training_batch)
    steps = iter(range(10**9))
    yield spec.title, model, model.trunk, lambda: model(batches(next(steps)))[1]


def _turbofan(subset: str, data_dir: str | None) -> Problem:
    torch.manual_seed(0)
    config = turbofan.TrainConfig(subset=subset)
    fleet = turbofan.load(subset, data_dir)
    seen = turbofan.prepare(
        fleet, smoothing=config.smoothing, capped_share=config.capped_share
    ).train
    whole = turbofan.Batch(*(torch.from_numpy(a) for a in (seen.inputs, seen.rul, seen.health)))
    model = turbofan.TurbofanNet("small", dropout=config.dropout)
    own = torch.Generator().manual_seed(0)

    def draw() -> dict[str, Tensor]:
        at = torch.randint(len(seen), (128,), generator=own)
        batch = turbofan.Batch(*(tensor[at] for tensor in whole))
        return turbofan.losses(model(batch.inputs), batch)

    return f"turbofan {subset}", model, model.backbone, draw


def measure(name: str, model: nn.Module, shared: nn.Module, draw: Losses) -> dict[str, Any]:
    """The norms in both metrics along one training."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tasks = list(draw())
    watchers = {
        "euclidean": gaba.Balancer(tasks, shared, "inverse"),
        "optimizer": gaba.Balancer(tasks, shared, "inverse-optimizer", optimizer=optimizer),
    }
    for step in range(STEPS):
        losses = draw()
        if step % EVERY == 0:
            for watcher in watchers.values():
                watcher(losses)  # it measures; the weighted loss that it gives is let go
        optimizer.zero_grad()
        torch.stack(list(losses.values())).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    last = slice(-round(LAST * STEPS / EVERY), None)
    found: dict[str, Any] = {"problem": name, "tasks": tasks, "steps": STEPS}
    for metric, watcher in watchers.items():
        norms = watcher.history.norms[last]
        weights = gaba.rules.InverseNorm()(norms)
        found[metric] = {
            "relative": np.median(norms / norms.min(1, keepdims=True), axis=0).tolist(),
            "apart": float(np.median(norms.max(1) / norms.min(1))),
            "weights": np.median(weights, axis=0).tolist(),
        }
    both = [np.asarray(watchers[m].history.norms[last]) for m in ("euclidean", "optimizer")]
    inverse = gaba.rules.InverseNorm()(both[0])
    contributions = inverse * both[1]
    found["left"] = float(np.median(contributions.max(1) / contributions.min(1)))
    return found


def page(found: list[dict[str, Any]]) -> None:
    head = ["model", "tasks", "norms apart, Euclidean", "norms apart, optimizer's metric"]
    head += ["inverse weights, Euclidean", "inverse weights, optimizer's metric"]
    head += ["imbalance that Euclidean weights leave in the optimizer's metric"]
    rows = []
    for record in found:
        a, b = record["euclidean"], record["optimizer"]
        cells = [record["problem"], "/".join(record["tasks"])]
        cells += [f"{record[m]['apart']:.3g}×" for m in ("euclidean", "optimizer")]
        cells += ["/".join(f"{w:.3f}" for w in part["weights"]) for part in (a, b)]
        rows.append([*cells, f"{record['left']:.3g}×"])
    write_page(
        DOCS / "metric.md",
        "# What plain SGD feels, and what the optimizer feels",
        f"AdamW (learning rate 1e-3, gradients clipped to 1), {STEPS} steps under uniform weights; "
        f"medians over the measured steps of the last {LAST:.0%}. Norms ‖∇L_k‖ and ‖P ∇L_k‖ with "
        "P = 1/(√v̂ + ε), on the same losses. *Apart* is the largest norm over the smallest.",
        table(head, rows),
        "Measured by `python benchmarks/metric.py`; every figure is in [metric.json](metric.json).",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-dir", help="the folder with cmapss and gas_turbine")
    parser.add_argument("--table-only", action="store_true", help="measure nothing")
    asked = parser.parse_args()
    path = DOCS / "metric.json"
    if not asked.table_only:
        found = []
        for problem in problems(asked.data_dir):
            found.append(measure(*problem))
            print(json.dumps(found[-1]), flush=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    page(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
