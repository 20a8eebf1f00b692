"""The final table of a run: how good the model is, what the balancer did, and the diagnosis."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

import gaba
from gaba.cli.explain import SIMULATED
from gaba.record.diagnosis import diagnose

REPORT = "report.txt"
WIDTH = 100


def title(run: dict[str, Any]) -> str:
    """Subset, or that the data are simulated, method, size and seed of a run.

    >>> title({"subset": "FD001", "method": "gaba", "size": "small", "seed": 0})
    'FD001 · gaba · small · seed 0'
    """
    subset = SIMULATED if run.get("simulated") else run["subset"]
    return f"{subset} · {run['method']} · {run['size']} · seed {run['seed']}"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(columns[0])
    for name in columns[1:]:
        table.add_column(name, justify="right")
    return table


def quality(metrics: dict[str, Any]) -> Table:
    """RMSE and NASA score with capped and raw labels, and the health metrics."""
    test = metrics["test"]
    table = _table(f"{metrics['test_engines']} test engines, last cycle", "capped labels", "raw")
    for name, key in (("RMSE (cycles)", "rmse"), ("NASA score (lower is better)", "score")):
        table.add_row(name, *(_figure(test[labels][key]) for labels in ("capped", "raw")))
    table.add_row("health: accuracy", f"{test['health']['accuracy']:.1%}", "")
    table.add_row("health: macro-F1", f"{test['health']['macro_f1']:.3f}", "")
    return table


def _figure(value: float | None) -> str:
    return "infinite" if value is None else f"{value:,.2f}"


def balance(history: gaba.History) -> Table:
    """The final weights, the imbalance and the share of saturated steps, by task."""
    table = _table(f"balancer, {len(history):,} steps", *history.tasks)
    table.add_row("final weight", *(f"{w:.4f}" for w in history.weights[-1]))
    measured = [bool(np.isfinite(norms).any()) for norms in history.norms.T]
    for name, column in (("norm", history.norms), ("contribution", history.contributions)):
        cells = (
            f"{np.nanmedian(column[:, k]):.4g}" if measured[k] else "not measured"
            for k in range(len(history.tasks))
        )
        table.add_row(f"{name}, median", *cells)
    table.add_row("saturated", *(f"{s:.1%} of steps" for s in history.saturated.mean(0)))
    return table


def imbalance(history: gaba.History) -> str:
    """The median and the last imbalance, in one line."""
    found = history.imbalance[~np.isnan(history.imbalance)]
    if not found.size:
        return "imbalance: not measured (this method needs no norms)"
    return f"imbalance: {np.median(found):.4g}× in the median step, {found[-1]:.4g}× at the end"


def build(metrics: dict[str, Any], history: gaba.History) -> RenderableType:
    """The whole report."""
    chosen = metrics["validation"]
    how = (
        f"model of step {chosen['step']} of {metrics['steps']}, chosen by the RMSE on the "
        f"validation engines ({chosen['rmse']:.2f} cycles)"
    )
    if not metrics["finished"]:
        how += "; the run is not finished"
    return Group(
        Text(title(metrics), style="bold"),
        Text(how),
        quality(metrics),
        balance(history),
        Text(f"{imbalance(history)}\n"),
        Text(str(diagnose(history))),
    )


def show(console: Console, run_dir: Path, metrics: dict[str, Any]) -> None:
    """Print the report, and write it into the run folder as plain text."""
    report = build(metrics, gaba.History.read(run_dir / "history.jsonl"))
    console.print()
    console.print(report)
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None, force_terminal=False).print(report)
    (run_dir / REPORT).write_text(text.getvalue(), encoding="utf-8")
