"""Pictures of a run: predictions, one engine, errors, the confusion matrix, and the balance.

Each function takes arrays and returns a matplotlib ``Figure`` that ``save`` writes as a PNG. No
global state of pyplot is touched, so that pictures can be drawn from any thread. Colours are those
of Okabe and Ito, which people with any colour vision tell apart, and a task has the same colour in
every picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gaba.turbofan._plot_balance import balance
from gaba.turbofan._plot_style import (
    EARLY,
    LATE,
    NEUTRAL,
    TASK_COLOURS,
    TRUE,
    Caption,
    MaxNLocator,
    blank,
    dress,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

__all__ = [
    "Caption",
    "balance",
    "confusion",
    "error_histogram",
    "predictions",
    "save",
    "trajectory",
]


def _pair(predicted: ArrayLike, true: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    y, t = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if y.ndim != 1 or y.shape != t.shape or not y.size:
        raise ValueError(
            "predicted and true must be two vectors of the same length, at least 1, "
            f"found shapes {y.shape} and {t.shape}: pass one value an engine or cycle in each"
        )
    return y, t


def _from_zero(axes: Axes, y: np.ndarray) -> None:
    """An axis of lives that shows 0 and every prediction, with room for the markers."""
    axes.margins(x=0.01)
    top = axes.get_ylim()[1]
    axes.set_ylim(min(0.0, float(y.min())) - 0.02 * top, top)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def predictions(predicted: ArrayLike, true: ArrayLike, caption: Caption) -> Figure:
    """Predicted against true RUL (cycles) of the test engines, shape (N,), sorted by true RUL.

    Raises:
        ValueError: if the two are not vectors of one length, or are empty.

    >>> figure = predictions([90, 20, 61], [100, 18, 60], Caption("FD001", "gaba", 5.9))
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [18.0, 60.0, 100.0]
    """
    y, t = _pair(predicted, true)
    order = np.argsort(t, kind="stable")
    y, t, x = y[order], t[order], np.arange(1, t.size + 1)
    figure = blank(9, 4.8)
    axes = figure.add_subplot()
    late = y > t
    axes.vlines(x[late], t[late], y[late], color=LATE, linewidth=1, alpha=0.5)
    axes.vlines(x[~late], y[~late], t[~late], color=EARLY, linewidth=1, alpha=0.7)
    axes.plot(x, t, color=TRUE, linewidth=2, label="true", drawstyle="steps-mid")
    size = float(np.clip(1500 / t.size, 8, 36))
    axes.scatter(x[~late], y[~late], s=size, color=EARLY, zorder=3, label="predicted, early")
    axes.scatter(
        x[late], y[late], s=size, color=LATE, marker="^", zorder=3, label="predicted, too late"
    )
    axes.set_xlabel("test engine, sorted by true remaining useful life")
    axes.set_ylabel("remaining useful life (cycles)")
    _from_zero(axes, y)
    axes.legend(frameon=False, loc="upper left")
    dress(axes, "Predicted and true remaining useful life at the last cycle", caption)
    return figure


def trajectory(
    cycles: ArrayLike, predicted: ArrayLike, true: ArrayLike, caption: Caption, *, unit: int | str
) -> Figure:
    """Predicted and true RUL (cycles) of one engine ``unit`` at its ``cycles``, all of shape (N,).

    Raises:
        ValueError: if the three are not vectors of one length, or are empty.

    >>> figure = trajectory([1, 2, 3], [9, 9, 7], [9, 8, 7], Caption("FD001", "gaba"), unit=24)
    >>> figure.axes[0].get_xlabel()
    'time (cycles)'
    """
    y, t = _pair(predicted, true)
    x, _ = _pair(cycles, true)
    figure = blank(9, 4.8)
    axes = figure.add_subplot()
    axes.fill_between(
        x, t, y, where=(y > t).tolist(), interpolate=True, color=LATE, alpha=0.25, linewidth=0,
        label="predicted too late" if (y > t).any() else None,
    )  # fmt: skip
    axes.plot(x, t, color=TRUE, linewidth=2, label="true")
    axes.plot(
        x, y, color=TASK_COLOURS[0], linewidth=1.6, label="predicted",
        marker="o" if x.size < 3 else None,
    )  # fmt: skip
    axes.set_xlabel("time (cycles)")
    axes.set_ylabel("remaining useful life (cycles)")
    _from_zero(axes, y)
    axes.legend(frameon=False, loc="lower left")
    dress(axes, f"Engine {unit}: remaining useful life over its life", caption)
    return figure


def error_histogram(predicted: ArrayLike, true: ArrayLike, caption: Caption) -> Figure:
    """Histogram of the signed error d = predicted − true (cycles); the late side is d > 0.

    Raises:
        ValueError: if the two are not vectors of one length, or are empty.
    """
    y, t = _pair(predicted, true)
    d = y - t
    reach = max(1.0, float(np.abs(d).max()))
    width = max(1.0, float(np.ceil(2 * reach / 30)))
    edges = np.arange(int(np.ceil(reach / width)) + 1) * width
    # Each side on its own, so that an error of exactly 0 counts as not late.
    early, late = np.histogram(-d[d <= 0], edges)[0], np.histogram(d[d > 0], edges)[0]
    figure = blank(9, 4.8)
    axes = figure.add_subplot()
    axes.axvspan(0, edges[-1], color=LATE, alpha=0.07, linewidth=0)
    for counts, left, colour, name, hatch in (
        (early, -edges[1:], EARLY, "early or exact, d ≤ 0", None),
        (late, edges[:-1], LATE, "too late, d > 0", "//"),
    ):
        axes.bar(
            left, counts, width, align="edge", color=colour, edgecolor="white", hatch=hatch,
            label=f"{name}: {int(counts.sum())} of {d.size} engines",
        )  # fmt: skip
    axes.axvline(0, color=TRUE, linewidth=1.2)
    bias = float(d.mean())
    axes.axvline(
        bias, color=NEUTRAL, linestyle="--", linewidth=1.4, label=f"mean {bias:+.1f} cycles"
    )
    axes.set_xlim(-edges[-1], edges[-1])
    axes.set_ylim(top=max(1.0, 1.25 * float(max(early.max(), late.max()))))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("signed error d = predicted − true (cycles)")
    axes.set_ylabel("test engines")
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    dress(axes, "Signed errors: the late side costs more", caption)
    return figure


def confusion(matrix: ArrayLike, classes: Sequence[str], caption: Caption) -> Figure:
    """Confusion matrix (C, C) of counts: rows are true classes, columns predicted ones.

    Raises:
        ValueError: if the matrix is not square with one row a class.

    >>> figure = confusion([[9, 1], [0, 5]], ["normal", "critical"], Caption("FD001", "gaba"))
    >>> [text.get_text().split() for text in figure.axes[0].texts[:2]]
    [['9', '90%'], ['1', '10%']]
    """
    m = np.asarray(matrix, dtype=np.int64)
    if m.shape != (len(classes), len(classes)):
        raise ValueError(
            f"matrix must have one row and one column a class ({len(classes)}), found shape "
            f"{m.shape}: pass counts of true by predicted class"
        )
    share = m / np.maximum(m.sum(1, keepdims=True), 1)
    figure = blank(6.4, 5.4)
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(m):
        axes.text(
            j, i, f"{count}\n{share[i, j]:.0%}", ha="center", va="center", fontsize=12,
            color="white" if share[i, j] > 0.55 else "black",
        )  # fmt: skip
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted health")
    axes.set_ylabel("true health")
    dress(axes, "Health of the test engines at the last cycle", caption)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of the true class")
    return figure
