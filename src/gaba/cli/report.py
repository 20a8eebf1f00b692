"""The final table of a training: how good the model is, what the balancer did, the diagnosis."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

import gaba
from gaba.cli.runs import title
from gaba.cli.screen import WIDTH, table

REPORT = "report.txt"


def quality(metrics: dict[str, Any]) -> Table:
    """RMSE and NASA score with capped and raw labels, and the health metrics."""
    test = metrics["test"]
    made = table(f"{metrics['test_engines']} test engines, last cycle", "capped labels", "raw")
    for name, key in (("RMSE (cycles)", "rmse"), ("NASA score (lower is better)", "score")):
        found = (test[labels][key] for labels in ("capped", "raw"))
        made.add_row(name, *("infinite" if value is None else f"{value:,.2f}" for value in found))
    made.add_row("health: accuracy", f"{test['health']['accuracy']:.1%}", "")
    made.add_row("health: macro-F1", f"{test['health']['macro_f1']:.3f}", "")
    return made


def balance(history: gaba.History) -> Table:
    """The final multipliers and weights, and the medians and saturation of the tasks."""
    made = table(f"balancer, {len(history):,} steps", *history.tasks)
    last = history[-1]
    made.add_row("final multiplier", *(f"{m:.4g}" for m in last.multipliers.tolist()))
    made.add_row("final weight", *(f"{w:.4f}" for w in last.weights.tolist()))
    rows = [("norm", history.norms), ("contribution", history.contributions)]
    if np.isfinite(history.shares).any():
        rows.append(("share", history.shares))
    for name, columns in rows:
        known = (column[np.isfinite(column)] for column in columns.T)
        cells = (f"{np.median(part):.4g}" if part.size else "not measured" for part in known)
        made.add_row(f"{name}, median", *cells)
    made.add_row("saturated", *(f"{s:.1%} of steps" for s in history.saturated.mean(0)))
    return made


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
        Text(str(gaba.diagnose(history))),
    )


def show(console: Console, run_dir: Path, metrics: dict[str, Any]) -> None:
    """Print the report, and write it into the run folder as plain text."""
    report = build(metrics, gaba.History.read(run_dir / "history.jsonl"))
    console.print()
    console.print(report)
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None, force_terminal=False).print(report)
    (run_dir / REPORT).write_text(text.getvalue(), encoding="utf-8")
