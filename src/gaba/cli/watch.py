"""``gaba watch``: a run while it trains, in a terminal."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from gaba.cli.runs import record_of
from gaba.cli.screen import short, table
from gaba.web.follow import Follower

BARS = "▁▂▃▄▅▆▇█"
EVERY = 0.5
COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")
STATES = {
    "waiting": "waiting for the first step",
    "reading": "reading",
    "following": "following",
    "error": "stopped",
}


def watch(path: Path, console: Console, once: bool) -> None:
    """Show the run in ``path`` until Ctrl-C; once if asked, or if the output is no terminal.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: once, and the file is no record.
    """
    follower = Follower(record_of(path))
    if once or not console.is_terminal:
        while follower.advance():
            pass
        follower.diagnose()
        if follower.error:
            raise ValueError(follower.error)
        console.print(view(follower, path.name or str(path), console.width))
        return
    try:
        _follow(follower, path, console)
    except KeyboardInterrupt:
        return


def _follow(follower: Follower, path: Path, console: Console) -> None:
    due = 0.0
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            more = follower.advance()
            if time.monotonic() >= due:
                if follower.state == "following":
                    follower.diagnose()
                live.update(view(follower, path.name or str(path), console.width), refresh=True)
                due = time.monotonic() + EVERY
            if not more:
                time.sleep(EVERY / 2)


def view(follower: Follower, name: str, width: int) -> RenderableType:
    """A run, for a terminal ``width`` columns wide."""
    state = Text(f"{name} · {STATES[follower.state]} · {follower.total:,} steps", style="bold")
    last = follower.latest[-1:]
    if not len(last):
        return Group(state, Text(follower.error, style="red"))
    measured = np.flatnonzero(follower.latest.measured)
    at = int(measured[-1]) if measured.size else len(follower.latest) - 1
    seen = follower.latest[at : at + 1]  # norms are not measured in every step
    made = table("task", "loss", "norm", "multiplier", "weight", "contribution", "saturated")
    room = max(10, min(60, width - 84))
    made.add_column("multipliers", no_wrap=True)
    curves = _curves(follower, room)
    for k, task in enumerate(last.tasks):
        made.add_row(
            Text(task, style=COLOURS[k % len(COLOURS)]),
            short(last.losses[0, k]),
            short(seen.norms[0, k]),
            short(last.multipliers[0, k]),
            f"{last.weights[0, k]:.4f}",
            short(seen.contributions[0, k]),
            f"{follower.saturated[k]:.1%}",
            Text(curves[f"multipliers/{k}"], style=COLOURS[k % len(COLOURS)]),
        )
    lines: list[RenderableType] = [state, made]
    imbalance = short(seen.imbalance[0])
    times = f"{imbalance}×" if imbalance != "–" else "not measured"
    lines.append(Text(f"imbalance {times}  {curves['imbalance']}  (logarithmic)"))
    lines.append(Text(_pace(follower), style="dim"))
    if follower.error:
        lines.append(Text(follower.error, style="red"))
    if (found := follower.diagnosis) is not None:
        of = f"the last {found.steps:,} steps" if found.steps < follower.total else "all steps"
        lines.append(Text(f"\nDiagnosis of {of}\n{found.verdict}", style="bold"))
        lines += [Text(found.code, style="cyan")] if found.code else []
        lines += [Text(f"- {finding.text}") for finding in found.evidence]
    return Group(*lines)


def _pace(follower: Follower) -> str:
    seconds = np.diff(follower.latest.times[-200:])
    known = seconds[seconds >= 0]
    pace = f"step time {float(np.median(known)):.3g} s" if known.size else "step time not recorded"
    return f"{pace} · {follower.skipped:,} steps skipped (not finite)"


def _curves(follower: Follower, room: int) -> dict[str, str]:
    found = follower.since(0, 0, room)
    if found is None:
        return dict.fromkeys(follower.names, "")
    return {
        name: curve(found.mean[i], logarithmic=name.startswith(("imbalance", "multipliers")))
        for i, name in enumerate(follower.names)
    }


def curve(values: np.ndarray, logarithmic: bool = False) -> str:
    """Values as a line of bars, from the least to the greatest; a space for NaN.

    >>> curve(np.array([0.0, 0.5, np.nan, 1.0]))
    '▁▅ █'
    >>> curve(np.array([1.0, 10.0, 100.0]), logarithmic=True)
    '▁▅█'
    """
    known = np.isfinite(values) & ((values > 0) | (not logarithmic))
    shown = np.where(known, values, 1.0)
    shown = np.log(shown) if logarithmic else shown
    if not known.any():
        return ""
    low, high = shown[known].min(), shown[known].max()
    part = (shown - low) / (high - low) if high > low else np.zeros_like(shown)
    steps = np.clip(np.round(part * (len(BARS) - 1)), 0, len(BARS) - 1).astype(int)
    return "".join(BARS[i] if k else " " for i, k in zip(steps, known, strict=True))
