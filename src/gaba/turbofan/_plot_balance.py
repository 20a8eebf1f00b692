"""The picture of the balance: norms, weights and contributions over the steps of a run."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from gaba.turbofan._plot_style import Caption, Patch, blank, dress, task_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gaba import History

BINS = 250
"""A longer history is drawn as this many medians, with a band from the 10th to the 90th percentile.
"""


def balance(history: History, caption: Caption) -> Figure:
    """Norms, weights and contributions of each task over the steps, on log axes.

    Stretches in which a weight was saturated (held at its floor) are shaded. More than ``BINS``
    steps are drawn as the median of equal stretches, with a band from the 10th to the 90th
    percentile; a stretch is shaded when at least half of its steps were saturated.

    Raises:
        ValueError: if the history has no steps.

    >>> import torch, gaba
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> balancer = gaba.Balancer(["a", "b"], shared=[w])
    >>> _ = balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
    >>> figure = balance(balancer.history, Caption("FD001", "inverse"))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['norm g (gradient of the loss)', 'weight λ', 'contribution c = λ·g']
    """
    if not len(history):
        raise ValueError("history must hold at least 1 step, found 0: record a run first")
    figure = blank(9, 9)
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    steps = np.asarray(history.steps, dtype=np.float64)
    saturated = np.asarray(history.saturated)
    marks: list[Patch] = []
    for k, task in enumerate(history.tasks):
        share = float(saturated[:, k].mean())
        if share:
            marks.append(
                Patch(
                    color=task_colour(k),
                    alpha=0.15,
                    linewidth=0,
                    label=f"{task} saturated: {share:.1%} of steps",
                )
            )
    for axes, values, name, overlap in (
        (top, history.norms, "norm g (gradient of the loss)", False),
        (middle, history.weights, "weight λ", True),
        (bottom, history.contributions, "contribution c = λ·g", False),
    ):
        for k, task in enumerate(history.tasks):
            # Weights that coincide, as in a warm-up, are all seen: the first are drawn wider.
            width = 1.4 + (1.4 * min(2, len(history.tasks) - 1 - k) if overlap else 0)
            _series(axes, steps, np.asarray(values)[:, k], task_colour(k), task, width)
            _shade(axes, steps, saturated[:, k], task_colour(k))
        if np.any(np.asarray(values) > 0):
            axes.set_yscale("log")
        else:
            empty = "not measured in this run" if np.isnan(values).all() else "never above 0"
            axes.text(0.5, 0.5, empty, transform=axes.transAxes, ha="center")
            axes.set_yticks([])
        axes.set_ylabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.01)
    bottom.set_xlabel("step")
    lines, _ = top.get_legend_handles_labels()
    figure.legend(
        handles=[*lines, *marks], loc="outside lower center", ncols=4, frameon=False, fontsize=10
    )
    dress(top, "What the balancer did: norms, weights, contributions", caption)
    return figure


def _bins(n: int) -> list[slice]:
    edges = np.linspace(0, n, min(n, BINS) + 1).round().astype(int)
    return [slice(a, b) for a, b in pairwise(edges)]


def _series(
    axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str, task: str, width: float
) -> None:
    shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    bins = _bins(steps.size)
    x = np.array([steps[b].mean() for b in bins])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, mid, high = np.array([np.nanquantile(shown[b], (0.1, 0.5, 0.9)) for b in bins]).T
    if steps.size > BINS:
        axes.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
    marker = "o" if x.size < 3 else None
    axes.plot(x, mid, color=colour, linewidth=width, label=task, marker=marker)


def _shade(axes: Axes, steps: np.ndarray, saturated: np.ndarray, colour: str) -> None:
    """One span for each unbroken row of stretches that are saturated at least half the time."""
    bins = _bins(steps.size)
    held = np.array([False, *(saturated[b].mean() >= 0.5 for b in bins), False])
    changes = np.flatnonzero(held[1:] != held[:-1])
    for first, end in zip(changes[::2], changes[1::2], strict=True):
        left, right = steps[bins[first].start], steps[bins[end - 1].stop - 1]
        axes.axvspan(float(left) - 0.5, float(right) + 0.5, color=colour, alpha=0.15, linewidth=0)
