"""What the balancer did in several runs, side by side on common axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gaba.record.plots import _draw
from gaba.record.plots._paper import Picture, blank, legend

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from gaba.record.history import History

__all__ = ["side_by_side"]


def side_by_side(histories: Mapping[str, History], *, dark: bool = False) -> Picture:
    """Norms, multipliers, contributions and imbalance below each other, a column for each run.

    Each row has one axis for all runs, so heights compare.

    Args:
        histories: The name of a run → its history.
        dark: Whether the page is dark.

    Raises:
        ValueError: There are no runs, or one has no steps.

    Example:
        >>> import torch, gaba
        >>> w, runs = torch.nn.Parameter(torch.ones(2)), {}
        >>> for method in ("inverse", "uniform"):
        ...     balancer = gaba.Balancer(["a", "b"], shared=[w], method=method)
        ...     step = balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
        ...     runs[method] = balancer.history
        >>> figure = side_by_side(runs)
        >>> [axes.get_title("left") for axes in figure.axes[:2]], len(figure.axes)
        (['inverse', 'uniform'], 8)
    """
    if not histories:
        raise ValueError("histories must hold at least 1 run, found 0")
    parts = (_draw.norms, _draw.multipliers, _draw.contributions, _draw.imbalance)
    found = [blank(history, dark, 2.1 * len(parts) + 0.6) for history in histories.values()]
    figure, style = found[0]
    figure.set_figwidth(max(8.0, 1.0 + 4.2 * len(histories)))
    rows = figure.subplots(len(parts), len(histories), sharex=True, squeeze=False)
    named: dict[str, Artist] = {}
    for row, part in zip(rows, parts, strict=True):
        for axes, history in zip(row, histories.values(), strict=True):
            part(axes, history, style)
            axes.set_xlabel("")
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                named.setdefault(label, handle)
        measured = [axes for axes in row if len(axes.get_yticks())]
        _align(measured)
        for line in (line for axes in row if axes not in measured for line in axes.lines):
            line.remove()  # that of a perfect balance
    for axes in rows[-1]:
        axes.set_xlabel("step")
    for axes, name in zip(rows[0], histories, strict=True):
        axes.set_title(name, loc="left", fontsize=11, fontweight="bold", color=style.ink)
    figure.legend(list(named.values()), list(named), **legend(style))
    return figure


def _align(row: list[Axes]) -> None:
    """Give all ``row`` one scale and one range: that of all of them."""
    scale = "log" if {axes.get_yscale() for axes in row} == {"log"} else "linear"
    for axes in row:
        axes.set_yscale(scale)
    ends = [end for axes in row for end in axes.get_ylim()]
    for axes in row:
        axes.set_ylim(min(ends), max(ends))
