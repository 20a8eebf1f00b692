"""What is drawn on the axes of a picture: lines with bands, shaded stretches, rows of colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gaba.record.plots._paper import Axes, LinearSegmentedColormap, Style, dress

if TYPE_CHECKING:
    from gaba.record.cosines import Cosines
    from gaba.record.history import History

Floats = NDArray[np.float64]

BUCKETS = 500
"""A picture is not much wider than this many lines."""

JOINED = 4
"""A gap in a line is bridged up to so many times the usual distance of its points."""

NUMBERED = 16
"""The cells of a matrix of more tasks are too small for numbers."""


def losses(axes: Axes, history: History, style: Style) -> None:
    lines(axes, history, history.losses, style, history.tasks)
    axes.set_ylabel("loss L")


def norms(axes: Axes, history: History, style: Style) -> None:
    lines(axes, history, history.norms, style, history.tasks)
    axes.set_ylabel("norm g")


def multipliers(axes: Axes, history: History, style: Style) -> None:
    shade(axes, history, style)
    lines(axes, history, history.multipliers, style, history.tasks)
    axes.set_ylabel("multiplier m")


def weights(axes: Axes, history: History, style: Style) -> None:
    shade(axes, history, style)
    lines(axes, history, history.weights, style, history.tasks)
    axes.set_ylabel("weight λ")


def contributions(axes: Axes, history: History, style: Style) -> None:
    lines(axes, history, history.contributions, style, history.tasks)
    axes.set_ylabel("contribution c = m g")


def shares(axes: Axes, history: History, style: Style) -> None:
    lines(axes, history, history.shares, style, history.tasks)
    axes.axhline(1 / len(history.tasks), color=style.good, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylabel("share s")


def imbalance(axes: Axes, history: History, style: Style) -> None:
    shade(axes, history, style)
    lines(axes, history, history.imbalance[:, None], style, ["_imbalance"])
    axes.axhline(1, color=style.good, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylabel("imbalance max c / min c")


def saturation(axes: Axes, history: History, style: Style) -> None:
    held = history.saturated.astype(np.float64)
    parts = zip(history.tasks, held.mean(axis=0), strict=True)
    names = [f"{task}: {100 * part:.1f} %" for task, part in parts]
    colours = LinearSegmentedColormap.from_list("held", [style.grid, style.bad])
    rows(axes, history, held, style, names, colours, (0, 1))
    axes.set_title("saturated steps", loc="left", fontsize=10, color=style.ink)


def cosines(axes: Axes, history: History, style: Style) -> None:
    first, second = np.triu_indices(len(history.tasks), 1)
    names = [f"{history.tasks[i]}, {history.tasks[j]}" for i, j in zip(first, second, strict=True)]
    values = history.cosines[:, first, second]
    image = rows(axes, history, values, style, names, cosine_colours(style), (-1, 1))
    key(axes, image, style)
    axes.set_title("cosine between gradients", loc="left", fontsize=10, color=style.ink)


def cosine_matrix(axes: Axes, found: Cosines, tasks: Sequence[str], style: Style) -> None:
    k = len(tasks)
    values = np.where(np.eye(k, dtype=bool), np.nan, found.median)
    dress(axes, style)
    axes.set_xlabel("")
    image = axes.imshow(
        values, aspect="auto", interpolation="nearest", cmap=cosine_colours(style), vmin=-1, vmax=1
    )
    axes.set_xticks(range(k), tasks, rotation=30 if k > 6 else 0)
    axes.set_yticks(range(k), tasks)
    for i, j in np.argwhere(~np.eye(k, dtype=bool)) if k <= NUMBERED else ():
        value = values[i, j]
        text = "–" if np.isnan(value) else f"{value:.2f}"
        colour = style.paper if abs(value) > 0.6 else style.ink
        axes.text(j, i, text, ha="center", va="center", fontsize=9, color=colour)
    key(axes, image, style)
    said = f"median cosine of {found.steps:,} step{'s' * (found.steps != 1)}"
    axes.set_title(said, loc="left", fontsize=10, color=style.ink)


def cosine_colours(style: Style) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list("cosine", [style.bad, style.grid, style.good])


def key(axes: Axes, image: Any, style: Style) -> None:
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.ax.tick_params(colors=style.quiet, labelsize=8)
    bar.outline.set_visible(False)


def edges(n: int) -> NDArray[np.int64]:
    return np.linspace(0, n, min(n, BUCKETS) + 1).round().astype(np.int64)


def means(values: NDArray[Any]) -> NDArray[Any]:
    """The mean (B, S) of the finite values (N, S) in each stretch, NaN where there are none."""
    starts = edges(len(values))[:-1]
    known = np.isfinite(values)
    total = np.asarray(np.add.reduceat(np.where(known, values, 0.0), starts))
    count = np.add.reduceat(known.astype(np.float64), starts)
    mean = np.full_like(total, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def lines(
    axes: Axes, history: History, values: Floats, style: Style, labels: Sequence[str]
) -> None:
    values = np.where(np.isfinite(values), np.asarray(values, dtype=np.float64), np.nan)
    logarithmic = not (values <= 0).any() or np.nanmin(values, initial=np.inf) == 0
    if logarithmic:
        values = np.where(values > 0, values, np.nan)
    low, high = np.nanmin(values, initial=np.inf), np.nanmax(values, initial=-np.inf)
    if 0 < high - low < 1e-9 * abs(high):  # rounding alone gives an axis no length
        values = np.where(np.isnan(values), np.nan, high)
    starts = edges(len(values))[:-1]
    steps = history.steps[starts]
    middle = means(values)
    low = np.asarray(np.fmin.reduceat(values, starts))
    high = np.asarray(np.fmax.reduceat(values, starts))
    dress(axes, style)
    axes.grid(visible=True, color=style.grid, linewidth=0.8)
    axes.margins(x=0.01)
    if not np.isfinite(values).any():
        axes.text(
            0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=style.quiet
        )
        axes.set_yticks([])
        return
    for k, label in enumerate(labels):
        colour = style.tasks[k % len(style.tasks)]
        if len(history) > BUCKETS:
            axes.fill_between(steps, low[:, k], high[:, k], color=colour, alpha=0.22, linewidth=0)
        places, seldom = joined(np.isfinite(middle[:, k]))
        marker = "o" if len(steps) < 3 else "." if seldom else None
        points = np.append(middle[:, k], np.nan)[places]
        at = np.append(steps, steps[-1])[places]
        axes.plot(at, points, color=colour, linewidth=1.5, label=label, marker=marker, ms=4)
    if logarithmic:
        axes.set_yscale("log")


def joined(known: NDArray[np.bool_]) -> tuple[NDArray[np.int64], bool]:
    """The places (n,) to draw a line through, and whether most have none beside them.

    What is measured now and then, or a task that some batches lack, is joined up; a gap of more
    than four times the usual one stays open, by a place behind the last.
    """
    places = np.flatnonzero(known)
    gaps = np.diff(places)
    usual = float(np.median(gaps)) if len(gaps) else 1.0
    wide = np.flatnonzero(gaps > JOINED * usual)
    return np.insert(places, wide + 1, len(known)), usual > 1


def shade(axes: Axes, history: History, style: Style) -> None:
    held = np.asarray(history.saturated.any(axis=1), dtype=np.float64)[:, None]
    often = np.concatenate(([False], means(held)[:, 0] >= 0.5, [False]))
    steps = history.steps
    ends = np.append(steps, steps[-1] + 1)[edges(len(steps))]
    changes = np.flatnonzero(often[1:] != often[:-1])
    for i, (first, last) in enumerate(zip(changes[::2], changes[1::2], strict=True)):
        label = "_" if i else "saturated"
        span = float(ends[first]), float(ends[last])
        axes.axvspan(*span, color=style.held, linewidth=0, label=label)


def rows(
    axes: Axes,
    history: History,
    values: Floats,
    style: Style,
    names: Sequence[str],
    colours: LinearSegmentedColormap,
    limits: tuple[float, float],
) -> Any:
    dress(axes, style)
    steps = history.steps
    image = axes.imshow(
        means(np.asarray(values, dtype=np.float64)).T,
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        extent=(float(steps[0]), float(steps[-1]) + 1, len(names) - 0.5, -0.5),
    )
    axes.set_yticks(range(len(names)), names)
    return image
