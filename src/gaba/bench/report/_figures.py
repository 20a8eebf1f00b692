"""Pictures of the benchmark: critical differences, Pareto fronts, time and quality, intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gaba.bench import statistics as stats
from gaba.bench.report._paper import COLOURS, GROUPS, paper
from gaba.bench.report._regret import spent
from gaba.bench.report._runs import SWEEP, TUNED, Block, Run, group_of, number, rankable
from gaba.bench.report._views import Ranking
from gaba.bench.statistics import Interval
from gaba.extras import library
from gaba.record.plots import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, QUIET, GRID, FAINT = (COLOURS[name][0] for name in ("ink", "quiet", "grid", "faint"))
NAMED = ("uniform", "gaba", "paper", "inverse", "equal-share", TUNED, SWEEP)
"""Methods that always have their name beside them."""

WIDTH = 85
"""Of a name, in points; the longest in use."""

Figure = Callable[[Mapping[str, Any]], float]
Axis = tuple[str, Figure, bool]
"""What an axis shows: its label, its value of the test figures of a run, whether more is better."""


def colour_of(method: str) -> str:
    """Of the group of the method, on light paper."""
    return COLOURS[group_of(method)][0]


def critical_difference(ranking: Ranking) -> Picture:
    """Mean ranks on a line, by scikit-posthocs (Demšar 2006, figure 1).

    Bars join methods that the Nemenyi test does not tell apart.
    """
    frame = library("pandas", "the report of a benchmark needs", "bench").DataFrame
    posthocs = library("scikit_posthocs", "the report of a benchmark needs", "bench")
    names, k = [ranking.labels[m] for m in ranking.methods], len(ranking.methods)
    picture, (axes,) = paper(1, 1.2 + 0.24 * k)
    posthocs.critical_difference_diagram(
        {ranking.labels[method]: rank for method, rank in ranking.ranks.items()},
        frame(stats.nemenyi(ranking.scores), index=names, columns=names),
        ax=axes,
        label_fmt_left="{label}  {rank:.2f}",
        label_fmt_right="{rank:.2f}  {label}",
        label_props={"fontsize": 8.5},
        marker_props={"s": 14},
        elbow_props={"linewidth": 0.9},
        crossbar_props={"color": INK, "linewidth": 3, "alpha": 0.75},
        color_palette={ranking.labels[m]: colour_of(m) for m in ranking.methods},
        text_h_margin=0.02 * k,
    )
    axes.grid(visible=False)
    axes.spines["top"].set(visible=True, color=INK)
    return picture


def pareto(block: Block) -> Picture:
    """Each task's metric on test data: the sweep of fixed weights, its front, and the methods."""
    panels = panels_of(block)
    picture, axes = paper(len(panels), 3.9 if len(panels) < 3 else 3.3)
    methods = rankable(block.methods)
    named: list[tuple[Axes, dict[str, Any], set[str]]] = []
    for one, pair in zip(axes, panels, strict=True):
        swept = np.array([_point(run.row.result, pair) for run in _swept(block)]).reshape(-1, 2)
        swept = swept[np.isfinite(swept).all(axis=1)]
        signs = np.array([-1 if up else 1 for *_, up in pair])
        front = swept[stats.pareto_front(swept * signs)]
        one.plot(front[:, 0], front[:, 1], color=FAINT, linewidth=1, zorder=1)
        one.plot(swept[:, 0], swept[:, 1], ".", color=FAINT, markersize=4, zorder=1)
        means = {m: _mean_point(block.final[m].values(), pair) for m in methods}
        means = {m: point for m, point in means.items() if np.isfinite(point).all()}
        _points(one, means, [*means.values(), *front])
        best = stats.pareto_front(np.array(list(means.values())).reshape(-1, 2) * signs)
        named.append((one, means, {list(means)[i] for i in best} if len(panels) < 3 else set()))
        one.set_xlabel(pair[0][0])
        one.set_ylabel(pair[1][0])
    _legend(picture, axes[0], methods, sweep=bool(block.trials(SWEEP)))
    _settle(picture)
    for one, means, more in named:
        _names(picture, one, means, more, block)
    return picture


def time_and_quality(block: Block) -> Picture:
    """Filled: the seconds of one run; hollow: of all trials that chose its setting as well."""
    picture, (axes,) = paper(1, 3.9)
    once: dict[str, Any] = {}
    for method in rankable(block.methods):
        seconds, quality = block.median(method, "seconds"), block.quality(method)
        if not seconds > 0:
            continue
        once[method] = np.array([seconds, quality])
        if tuning := spent(block, method):
            colour = colour_of(method)
            axes.plot([seconds, seconds + tuning], [quality] * 2, color=GRID, zorder=1)
            axes.plot(seconds + tuning, quality, "o", mfc="none", mec=colour, ms=4.5, zorder=2)
    _points(axes, once, list(once.values()))
    axes.autoscale(axis="x")
    _logarithmic(axes, "x")
    axes.set_xlabel("seconds of training: filled one run, hollow with the trials that chose it")
    axes.set_ylabel("quality on test data (0 perfect, 1 trivial)")
    _legend(picture, axes, list(once), sweep=False)
    _settle(picture)
    best = min(once, key=lambda m: once[m][1], default="")
    _names(picture, axes, once, {best}, block)
    return picture


def intervals(rows: Sequence[tuple[str, Interval, str]], label: str) -> Picture:
    """A line a comparison: the mean and its interval, in per cent, with 0 marked.

    Args:
        rows: name, interval, and the group that gives the colour.
        label: of the axis.
    """
    picture, (axes,) = paper(1, 0.9 + 0.24 * len(rows))
    axes.axvline(0, color=QUIET, linewidth=1)
    for y, (_, at, group) in enumerate(rows):
        colour = COLOURS[group][0]
        if not math.isnan(at.low):
            axes.plot([100 * at.low, 100 * at.high], [y, y], color=colour, linewidth=1.8)
        axes.plot(100 * at.estimate, y, "o", color=colour, markersize=5)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.tick_params(axis="y", labelsize=8.5, labelcolor=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(label)
    means = [abs(100 * at.estimate) for _, at, _ in rows]
    if means and max(means) > 0:  # one very wide interval must not hide the others
        reach = max(4 * float(np.median(means)), 1.3 * max(means))
        ends = np.clip(
            [e for _, at, _ in rows for e in (100 * at.low, 100 * at.high)], -reach, reach
        )
        known = [*ends[np.isfinite(ends)], *(100 * at.estimate for _, at, _ in rows), 0.0]
        axes.set_xlim(min(known) - 0.05 * reach, max(known) + 0.05 * reach)
    return picture


def panels_of(block: Block) -> list[tuple[Axis, Axis]]:
    """The pairs of axes: task against task; with more than three, mean against worst quality."""
    first = {m.task: m for m in reversed(block.judge.metrics)}
    names = [first[task] for task in block.judge.tasks]
    if len(names) > 3:
        mean, worst = (_over(block, how) for how in (np.mean, np.max))
        return [(("mean quality of the metrics", mean, False), ("worst of them", worst, False))]
    axes: list[Axis] = [(m.name, _named(m.name), m.higher_is_better) for m in names]
    panels = [(a, b) for i, a in enumerate(axes) for b in axes[i + 1 :]]
    known = next((r.row.result.get("test") or {} for r in block.runs if r.quality < math.inf), {})
    rmse = next((name for name in known if "rmse" in name), None)
    nasa = next((name for name in known if "nasa" in name), None)
    if rmse and nasa and len(panels) < 3:
        panels.append(((rmse, _named(rmse), False), (nasa, _named(nasa), False)))
    return panels or [(axes[0], axes[0])]


def _named(name: str) -> Figure:
    return lambda figures: number(figures.get(name))


def _over(block: Block, how: Callable[..., Any]) -> Figure:
    metrics = [metric for metric in block.judge.metrics if metric.decides]
    return lambda figures: float(how([m.quality(number(figures.get(m.name))) for m in metrics]))


def _swept(block: Block) -> list[Run]:
    """The sweep's run of each weighting with the rates that validation chose for it."""
    best: dict[Any, Run] = {}
    for run in block.trials(SWEEP):
        if run.multipliers not in best or run.chosen_by < best[run.multipliers].chosen_by:
            best[run.multipliers] = run
    return list(best.values())


def _point(result: Mapping[str, Any], pair: tuple[Axis, Axis]) -> list[float]:
    figures = result.get("test") or {}
    return [value(figures) for _, value, _ in pair]


def _mean_point(runs: Any, pair: tuple[Axis, Axis]) -> Any:
    points = np.array([_point(run.row.result, pair) for run in runs if not run.diverged])
    return points.mean(axis=0) if len(points) else np.array([math.nan, math.nan])


def _points(axes: Axes, means: Mapping[str, Any], seen: Sequence[Any]) -> None:
    for method, (x, y) in means.items():
        axes.plot(x, y, "o", color=colour_of(method), markersize=5.5, zorder=3)
    if not len(seen):
        return
    for values, name, limit in zip(
        np.array(seen).T, "xy", (axes.set_xlim, axes.set_ylim), strict=True
    ):
        low, high = values.min(), values.max()
        if low > 0 and high > 20 * low:
            _logarithmic(axes, name)
            limit(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
        else:
            room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
            limit(low - room, high + room)


def _logarithmic(axes: Axes, name: str) -> None:
    """A logarithmic axis whose ticks are plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(LogLocator(subs=()))


def _settle(picture: Picture) -> None:
    """Lay it out once and for all: what is added later moves nothing."""
    picture.draw_without_rendering()
    picture.set_layout_engine("none")


def _names(
    picture: Picture, axes: Axes, means: Mapping[str, Any], more: set[str], block: Block
) -> None:
    """Names beside the points, pushed apart where they would lie on each other."""
    wanted = [m for m in means if m in NAMED or m in more or block.only_warms_up(m)]
    unit = picture.dpi / 72
    box = axes.get_window_extent()
    spots = {m: axes.transData.transform(means[m]) for m in wanted}
    wanted = [m for m in wanted if box.contains(*spots[m])]
    sides: dict[tuple[bool, int], list[str]] = {}
    near, last = 0, -math.inf  # names far apart from left to right may have one height
    for method in sorted(wanted, key=lambda m: spots[m][0]):
        x = spots[method][0]
        near, last = near + (x > last + WIDTH * unit), x
        sides.setdefault((bool(x > box.x0 + 0.68 * box.width), near), []).append(method)
    for (left, _), together in sides.items():
        names = sorted(together, key=lambda m: spots[m][1])
        heights = _apart([spots[m][1] for m in names], 10.5 * unit, box.y1)
        for method, height in zip(names, heights, strict=True):
            axes.annotate(
                block.label(method),
                means[method],
                xytext=(-7 if left else 7, (height - spots[method][1]) / unit),
                textcoords="offset points",
                ha="right" if left else "left",
                va="center",
                fontsize=8,
                color=INK,
                zorder=4,
            )


def _apart(heights: Sequence[float], gap: float, most: float) -> list[float]:
    """The ascending heights pushed up to lie ``gap`` apart, then down to end below ``most``."""
    found: list[float] = []
    for height in heights:
        found.append(max(height, found[-1] + gap) if found else height)
    for i in reversed(range(len(found))):
        found[i] = min(found[i], found[i + 1] - gap if i + 1 < len(found) else most)
    return found


def _legend(picture: Picture, axes: Axes, methods: Sequence[str], sweep: bool) -> None:
    present = {group_of(method) for method in methods}
    handles = [
        axes.plot([], [], "o", color=COLOURS[group][0], markersize=5.5, label=group)[0]
        for group in GROUPS
        if group in present
    ]
    if sweep:
        handles += axes.plot([], [], ".-", color=FAINT, linewidth=1, label="sweep and its front")
    picture.legend(
        handles=handles, loc="outside upper right", ncols=7, frameon=False, fontsize=8.5,
        labelcolor=INK,
    )  # fmt: skip
