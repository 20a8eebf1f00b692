"""Figures of a history, for notebooks and reports: what the balancer did over the steps of a run.

More than 500 steps are drawn as the mean of equal stretches, with a band from the least to
the greatest value in each, so that no outlier is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gaba.record.plots import _draw
from gaba.record.plots._paper import Picture, Style, blank, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gaba import History

__all__ = [
    "Picture",
    "contributions",
    "cosines",
    "imbalance",
    "losses",
    "norms",
    "overview",
    "saturation",
    "weights",
]

Part = Callable[["Axes", "History", Style], None]


def losses(history: History, *, dark: bool = False) -> Picture:
    """The loss L_k of each task over the steps, on a logarithmic axis where all are above 0.

    Args:
        history: N steps of K tasks, ``losses`` (N, K).
        dark: for a dark page.

    Raises:
        ValueError: the history has no steps.

    >>> losses(_two_tasks()).axes[0].get_ylabel()
    'loss L'
    """
    return _single(history, dark, _draw.losses)


def norms(history: History, *, dark: bool = False) -> Picture:
    """The norm g_k of each task's gradient over the steps, on a logarithmic axis.

    Args:
        history: N steps of K tasks, ``norms`` (N, K); steps without measurement are left out.
        dark: for a dark page.

    Raises:
        ValueError: the history has no steps.

    >>> [line.get_label() for line in norms(_two_tasks()).axes[0].lines]
    ['a', 'b']
    """
    return _single(history, dark, _draw.norms)


def weights(history: History, *, dark: bool = False) -> Picture:
    """The weight λ_k of each task over the steps; stretches with a saturated weight are shaded.

    Args:
        history: N steps of K tasks, ``weights`` and ``saturated`` (N, K).
        dark: for a dark page.

    Raises:
        ValueError: the history has no steps.

    >>> weights(_two_tasks()).axes[0].lines[1].get_ydata().round(2).tolist()
    [0.25, 0.25]
    """
    return _single(history, dark, _draw.weights)


def contributions(history: History, *, dark: bool = False) -> Picture:
    """The contribution c_k = λ_k g_k of each task over the steps, on a logarithmic axis.

    Args:
        history: N steps of K tasks, ``contributions`` (N, K).
        dark: for a dark page.

    Raises:
        ValueError: the history has no steps.

    >>> low, high = contributions(_two_tasks()).axes[0].lines
    >>> bool(np.allclose(low.get_ydata(), high.get_ydata()))
    True
    """
    return _single(history, dark, _draw.contributions)


def imbalance(history: History, *, dark: bool = False) -> Picture:
    """The imbalance max c / min c over the steps, on a logarithmic axis; 1 is balanced.

    Args:
        history: N steps, ``imbalance`` (N,); infinite ones are left out.
        dark: for a dark page.

    Raises:
        ValueError: the history has no steps.

    >>> imbalance(_two_tasks()).axes[0].get_ylabel()
    'imbalance max c / min c'
    """
    return _single(history, dark, _draw.imbalance)


def saturation(history: History, *, dark: bool = False) -> Picture:
    """When the weight of each task sat on its floor: a row a task, filled as often as it did.

    Args:
        history: N steps of K tasks, ``saturated`` (N, K).
        dark: for a dark page.

    Raises:
        ValueError: the history has no steps.

    >>> saturation(_two_tasks()).axes[0].get_yticklabels()[0].get_text()
    'a: 0.0 %'
    """
    return _single(history, dark, _draw.saturation, 0.9 + 0.35 * len(history.tasks))


def cosines(history: History, *, dark: bool = False) -> Picture:
    """The cosine between the gradients of each pair of tasks over the steps, as a heat map.

    Args:
        history: N steps of K tasks, ``cosines`` (N, K, K); NaN where the Gramian was not measured.
        dark: for a dark page.

    Raises:
        ValueError: the history has no steps, or no step has cosines.

    >>> cosines(_two_tasks("equal-share")).axes[0].get_yticklabels()[0].get_text()
    'a, b'
    """
    first, second = np.triu_indices(len(history.tasks), 1)
    if not np.isfinite(np.asarray(history.cosines)[:, first, second]).any():
        raise ValueError(
            "history must have cosines in some step, found none: they are measured where the "
            'weighting needs the Gramian, such as weighting="equal-share"'
        )
    pairs = len(history.tasks) * (len(history.tasks) - 1) // 2
    return _single(history, dark, _draw.cosines, 1.2 + 0.3 * pairs)


def overview(history: History, *, dark: bool = False) -> Picture:
    """Norms, weights, contributions and imbalance below each other, over the same steps.

    Args:
        history: N steps of K tasks.
        dark: for a dark page.

    Raises:
        ValueError: the history has no steps.

    >>> len(overview(_two_tasks()).axes)
    4
    """
    parts = (_draw.norms, _draw.weights, _draw.contributions, _draw.imbalance)
    figure, style = blank(history, dark, 2.1 * len(parts) + 0.4)
    axes = figure.subplots(len(parts), 1, sharex=True)
    for part, each in zip(parts, axes, strict=True):
        part(each, history, style)
        each.set_xlabel("")
    axes[-1].set_xlabel("step")
    figure.legend(*axes[0].get_legend_handles_labels(), **legend(style))
    return figure


def _single(history: History, dark: bool, part: Part, height: float = 3.2) -> Picture:
    figure, style = blank(history, dark, height)
    axes = figure.subplots()
    part(axes, history, style)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, **legend(style))
    return figure


def _two_tasks(method: str = "inverse") -> History:
    """Two steps, for the examples above."""
    import torch

    import gaba

    w = torch.nn.Parameter(torch.ones(2))
    balancer = gaba.Balancer(["a", "b"], shared=[w], method=method)
    for _ in range(2):
        balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
    return balancer.history
