"""The picture of several units over their cycles: remaining life, interval, and what is late."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gaba.extras import needs
from gaba.turbofan.plots import LATE, NEUTRAL, PREDICTED, TRUE, Caption, blank

with needs("pictures need", "turbofan", "matplotlib"):
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gaba.turbofan.lives import Life

__all__ = ["lives"]

HEAD = 0.76
"""Inches for the title and the two lines below it."""
BAND = "#B5D3E7"
LONGEST = 14
"""Characters of a unit's name that fit above its panel."""
MARKS = 12
"""At most about so many marks along the life of a unit, the last late cycle among them."""


def lives(
    shown: Sequence[Life],
    verdict: str,
    rule: str,
    caption: Caption,
    *,
    cap: float,
    allowed: float,
    coverage: float = 0.9,
    noun: str = "engine",
) -> Figure:
    """Remaining life over cycles, a panel a unit, on common axes.

    A band is the interval, a solid line what was predicted, a dashed one the truth where it is
    known. Triangles mark a prediction of more than ``allowed`` cycles too many. Beside the name of
    a unit stands its error at the last cycle, or the prediction where the truth is not known.

    Args:
        shown: The units, 1 to 12.
        verdict: The title, one line.
        rule: How the units were chosen.
        caption: Of the run.
        cap: The largest remaining life that is told apart, in cycles.
        allowed: In cycles.
        coverage: The nominal coverage of the interval.
        noun: What a unit is called whose name is only a number.

    Raises:
        ValueError: There are no units, or more than 12.

    >>> from gaba.turbofan.lives import Life
    >>> cycle = np.arange(1.0, 4.0)
    >>> life = Life("7", cycle, cycle + 30, cycle, cycle + 60, 9 - cycle)
    >>> figure = lives(
    ...     [life], "1 of 1", "all", Caption("FD001", "gaba"), cap=125.0, allowed=10.0
    ... )
    >>> figure.axes[0].get_title("right")
    '▲ 27 cycles late'
    """
    if not 1 <= len(shown) <= 12:
        raise ValueError(f"shown must be 1 to 12 units, found {len(shown)}: choose with spread()")
    across = 2 if len(shown) in (2, 4) else min(3, len(shown))
    down = math.ceil(len(shown) / across)
    figure = blank(10, 1.5 + 2.6 * down)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, life in zip(panels, shown, strict=False):
        _panel(axes, life, cap, allowed, coverage)
        axes.set_title(
            _named(life.unit, noun), loc="left", fontsize=10, fontweight="bold", parse_math=False
        )
        axes.set_xlabel("time (cycles)")
        axes.set_ylabel("remaining life (cycles)")
        axes.tick_params(labelbottom=True, labelleft=True)
    for axes in panels[len(shown) :]:
        axes.remove()
    panels[0].set_ylim(-0.03 * cap, None)
    panels[0].xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    named: dict[str, Artist] = {}
    for axes in panels[: len(shown)]:
        named |= {
            label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
    figure.legend(
        list(named.values()), list(named), loc="outside lower center", ncols=4, frameon=False,
        fontsize=10,
    )  # fmt: skip
    _head(figure, verdict, f"{caption.text}\n{rule}")
    return figure


def _head(figure: Figure, verdict: str, rest: str) -> None:
    """One line in bold, and below it two lines for which the layout leaves room."""
    height = figure.get_figheight()
    layout = figure.get_layout_engine()
    assert isinstance(layout, ConstrainedLayoutEngine)
    layout.set(rect=(0, 0, 1, 1 - HEAD / height), w_pad=0.08)
    for line, size, weight, below in ((verdict, 12, "bold", 0.09), (rest, 10, "normal", 0.33)):
        figure.text(
            0.01, 1 - below / height, line, va="top", fontsize=size, fontweight=weight,
            color=TRUE if weight == "bold" else NEUTRAL, parse_math=False,
        )  # fmt: skip


def _panel(axes: Axes, life: Life, cap: float, allowed: float, coverage: float) -> None:
    x, y = np.asarray(life.cycle, np.float64), np.asarray(life.rul, np.float64)
    few = "o" if x.size < 3 else None
    low, high = np.asarray(life.low, np.float64), np.asarray(life.high, np.float64)
    if x.size == 1:
        x_band = np.array([x[0] - 1, x[0] + 1])
        low, high = low.repeat(2), high.repeat(2)
    else:
        x_band = x
    axes.fill_between(x_band, low, high, color=BAND, linewidth=0, label=f"{coverage:.0%} interval")
    axes.plot(x, y, color=PREDICTED, linewidth=1.6, label="predicted", marker=few)
    error = None
    if life.true is not None:
        t = np.asarray(life.true, np.float64)
        axes.plot(
            x, t, color=TRUE, linewidth=1.8, linestyle=(0, (4, 2)), marker=few,
            label=f"true, at most {cap:g}",
        )  # fmt: skip
        error = float(y[-1] - t[-1])
        apart = max(1, x.size // MARKS)
        marked = np.flatnonzero(y - t > allowed)[::-1][::apart][::-1]
        if marked.size:
            axes.scatter(
                x[marked], y[marked], s=34, marker="^", color=LATE, edgecolor=TRUE, linewidth=0.7,
                zorder=4, label=f"late: more than {allowed:.3g} cycles too many",
            )  # fmt: skip
    axes.set_title(_at_the_end(y[-1], error, allowed), loc="right", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)


def _named(unit: str, noun: str) -> str:
    name = f"{noun} {unit}" if unit.replace(".", "").isdigit() else unit
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _at_the_end(predicted: float, error: float | None, allowed: float) -> str:
    if error is None:
        return f"{_cycles(predicted)} left"
    if not round(error):
        return "on time"
    mark = "▲ " if error > allowed else ""
    return f"{mark}{_cycles(abs(error))} {'late' if error > 0 else 'early'}"


def _cycles(number: float) -> str:
    return f"{number:.0f} cycle{'s' * (round(number) != 1)}"
