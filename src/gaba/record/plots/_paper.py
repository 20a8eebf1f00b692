"""The paper that pictures are drawn on: colours, an empty figure, and how it shows itself."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from gaba.extras import needs

with needs("pictures need", "plots", "matplotlib"):
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

if TYPE_CHECKING:
    from gaba.record.history import History

__all__ = ["Axes", "LinearSegmentedColormap", "Picture", "Style", "blank", "dress", "legend"]


@final
@dataclass(frozen=True)
class Style:
    paper: str
    ink: str
    quiet: str
    grid: str
    held: str
    bad: str
    good: str
    tasks: tuple[str, ...]


LIGHT = Style(
    *("#ffffff", "#1c1f26", "#565b66", "#e7e4db", "#f6dfb0", "#a52a22", "#0f6b45"),
    tasks=(
        *("#0b6fb8", "#d1570a", "#0d8a6a", "#b8458f", "#6b5bd2", "#8a6d00"),
        *("#15839b", "#c23b3b", "#5a7d1a", "#7a4a2b", "#4a5a70", "#9340b8"),
    ),
)
DARK = Style(
    *("#1a1e25", "#eceef2", "#a9b1be", "#272d37", "#4a3a14", "#ff9d94", "#6fdcae"),
    tasks=(
        *("#5db2f5", "#ff9a4d", "#3fd0a5", "#f08acb", "#a99cff", "#e0c040"),
        *("#5ad2e8", "#ff8080", "#a9cf5a", "#d0a080", "#a8b8cc", "#d79af0"),
    ),
)


@final
class Picture(Figure):
    """A matplotlib figure that shows itself at the end of a notebook's cell.

    Example:
        >>> Picture(figsize=(1, 1))._repr_png_()[1:4]
        b'PNG'
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()


def blank(history: History, dark: bool, height: float) -> tuple[Picture, Style]:
    if not len(history):
        raise ValueError("history must hold at least 1 step, found 0: record a run first")
    style = DARK if dark else LIGHT
    return Picture(figsize=(8, height), layout="constrained", facecolor=style.paper), style


def legend(style: Style) -> dict[str, Any]:
    return {
        "loc": "outside upper right",
        "ncols": 6,
        "frameon": False,
        "fontsize": 9,
        "labelcolor": style.ink,
    }


def dress(axes: Axes, style: Style) -> None:
    axes.set_facecolor(style.paper)
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=style.quiet, labelsize=8, which="both", length=0)
    axes.xaxis.label.set_color(style.quiet)
    axes.yaxis.label.set_color(style.ink)
    axes.set_xlabel("step", fontsize=9)
    axes.set_axisbelow(True)
