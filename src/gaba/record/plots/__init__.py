"""Figures of a history, for notebooks and reports: what the balancer did over the steps of a run.

Each takes a history of at least one step, and ``dark=True`` for a dark page; a history without
steps is a ValueError. More than 500 steps are drawn as the mean of equal stretches, with a band
from the least to the greatest value in each, so no outlier is lost.

Example:
    >>> import torch, gaba
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> balancer = gaba.Balancer(["a", "b"], shared=[w], method="equal-share")
    >>> for _ in range(2):
    ...     step = balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
    >>> lines = (losses, norms, multipliers, weights, contributions, shares, imbalance)
    >>> [draw(balancer.history).axes[0].get_ylabel() for draw in lines]  # doctest: +ELLIPSIS
    ['loss L', 'norm g', 'multiplier m', 'weight λ', 'contribution c = m g', 'share s', ...]
    >>> rest = (saturation, cosines, cosine_matrix)
    >>> [draw(balancer.history).axes[0].get_title("left") for draw in rest]
    ['saturated steps', 'cosine between gradients', 'median cosine of 2 steps']
    >>> len(overview(balancer.history, dark=True).axes)
    4
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gaba.record.cosines import median_cosines
from gaba.record.plots import _draw
from gaba.record.plots._paper import Picture, Style, blank, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gaba.record.history import History

__all__ = [
    "Picture",
    "contributions",
    "cosine_matrix",
    "cosines",
    "imbalance",
    "losses",
    "multipliers",
    "norms",
    "overview",
    "saturation",
    "shares",
    "weights",
]


def losses(history: History, *, dark: bool = False) -> Picture:
    """The loss L_k of each task, on a logarithmic axis where all are above 0."""
    return _single(history, dark, _draw.losses)


def norms(history: History, *, dark: bool = False) -> Picture:
    """The norm g_k of each task, on a logarithmic axis; steps without measurement are left out."""
    return _single(history, dark, _draw.norms)


def multipliers(history: History, *, dark: bool = False) -> Picture:
    """The multiplier m_k of each task; stretches with a saturated one are shaded."""
    return _single(history, dark, _draw.multipliers)


def weights(history: History, *, dark: bool = False) -> Picture:
    """The weight λ_k of each task; stretches with a saturated one are shaded."""
    return _single(history, dark, _draw.weights)


def contributions(history: History, *, dark: bool = False) -> Picture:
    """The contribution c_k = m_k g_k of each task, on a logarithmic axis."""
    return _single(history, dark, _draw.contributions)


def shares(history: History, *, dark: bool = False) -> Picture:
    """The share s_k of each task in the update, in the steps where it is known.

    Raises:
        ValueError: no step has shares.
    """
    if len(history) and not np.isfinite(history.shares).any():
        raise ValueError(
            "history must have shares in some step, found none: they are measured by the default "
            "method, by gaba.Observer, and where the method needs the Gramian"
        )
    return _single(history, dark, _draw.shares)


def imbalance(history: History, *, dark: bool = False) -> Picture:
    """The imbalance max c / min c, on a logarithmic axis; infinite ones are left out."""
    return _single(history, dark, _draw.imbalance)


def saturation(history: History, *, dark: bool = False) -> Picture:
    """When the multiplier of each task was at its limit, a row a task."""
    return _single(history, dark, _draw.saturation, 0.9 + 0.35 * len(history.tasks))


def cosines(history: History, *, dark: bool = False) -> Picture:
    """The cosine between the gradients of each pair of tasks, as a heat map.

    Raises:
        ValueError: no step has cosines.
    """
    between = ~np.eye(len(history.tasks), dtype=bool)
    if len(history) and not np.isfinite(history.cosines[:, between]).any():
        raise _no_cosines()
    pairs = int(between.sum()) // 2
    return _single(history, dark, _draw.cosines, 1.2 + 0.3 * pairs)


def cosine_matrix(history: History, *, dark: bool = False) -> Picture:
    """The median cosine between the gradients of each two tasks, over the steps that have them.

    Raises:
        ValueError: no finite step has cosines.
    """
    found = median_cosines(history) if len(history) else None
    figure, style = blank(history, dark, 1.2 + 0.42 * len(history.tasks))
    if found is None:
        raise _no_cosines()
    _draw.cosine_matrix(figure.subplots(), found, history.tasks, style)
    return figure


def overview(history: History, *, dark: bool = False) -> Picture:
    """Norms, multipliers, contributions and imbalance below each other, over the same steps."""
    parts = (_draw.norms, _draw.multipliers, _draw.contributions, _draw.imbalance)
    figure, style = blank(history, dark, 2.1 * len(parts) + 0.4)
    axes = figure.subplots(len(parts), 1, sharex=True)
    for part, each in zip(parts, axes, strict=True):
        part(each, history, style)
        each.set_xlabel("")
    axes[-1].set_xlabel("step")
    figure.legend(*axes[0].get_legend_handles_labels(), **legend(style))
    return figure


def _single(
    history: History,
    dark: bool,
    part: Callable[[Axes, History, Style], None],
    height: float = 3.2,
) -> Picture:
    figure, style = blank(history, dark, height)
    axes = figure.subplots()
    part(axes, history, style)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, **legend(style))
    return figure


def _no_cosines() -> ValueError:
    return ValueError(
        "history must have cosines in some step, found none: they are measured by gaba.Observer "
        'and where the method needs the Gramian, such as method="equal-share"'
    )
