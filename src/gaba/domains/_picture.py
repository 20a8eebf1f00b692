"""The picture of an example: an empty figure, and writing it as a PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gaba.extras import needs

with needs("the examples draw with", "plots", "matplotlib"):
    from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Of Okabe and Ito: told apart by people with any colour vision."""


def panels(*titles: str, width: float = 5.2, height: float = 4.0) -> tuple[Figure, Any]:
    """A figure with one plot a title, side by side, and its array of axes."""
    figure = Figure(figsize=(width * len(titles), height), layout="constrained")
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for plot, title in zip(axes, titles, strict=True):
        plot.set_title(title, fontsize=10)
        plot.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` as a PNG at ``path``."""
    figure.savefig(path, dpi=110, format="png")
    print(f"picture: {path}")
