"""What all pictures share: palette, caption, an empty figure, and writing it as a PNG."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import final

from gaba.extras import needs

with needs("pictures need", "turbofan", "matplotlib"):
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

__all__ = [
    "EARLY",
    "LATE",
    "NEUTRAL",
    "TASK_COLOURS",
    "TRUE",
    "Caption",
    "MaxNLocator",
    "Patch",
    "blank",
    "dress",
    "save",
    "task_colour",
]

TRUE = "#000000"
EARLY = "#56B4E9"
LATE = "#D55E00"
NEUTRAL = "#595959"
TASK_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""One colour a task, in the order of the tasks, from the palette of Okabe and Ito."""


@final
@dataclass(frozen=True)
class Caption:
    """What every picture's title says of the run: subset, method, RMSE with capped labels (cycles).

    >>> Caption("FD001", "gaba", 13.24).text
    'FD001 · gaba · test RMSE 13.2 cycles, capped labels'
    >>> Caption("simulated", "gaba", 13.24, simulated=True).text
    'simulated data · gaba · test RMSE 13.2 cycles, capped labels'
    """

    subset: str
    method: str
    rmse: float | None = None
    simulated: bool = False

    @property
    def text(self) -> str:
        """The parts of the caption, joined by middle dots."""
        subset = self.subset
        if self.simulated:
            named = subset and subset != "simulated"
            subset = f"{subset} · simulated data" if named else "simulated data"
        rmse = [] if self.rmse is None else [f"test RMSE {self.rmse:.1f} cycles, capped labels"]
        return " · ".join([subset, self.method, *rmse])


def save(figure: Figure, path: Path | str) -> Path:
    """Write ``figure`` as a PNG at ``path``, whole or not at all, and return the path.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(blank(2, 1), Path(folder, "empty.png")).read_bytes()[1:4]
    b'PNG'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            figure.savefig(file, format="png", dpi=150)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def blank(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes, heading: str, caption: Caption) -> None:
    axes.set_title(f"{heading}\n", loc="left", fontsize=12, fontweight="bold", pad=4)
    axes.text(0, 1.02, caption.text, transform=axes.transAxes, fontsize=10, color=NEUTRAL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)


def task_colour(k: int) -> str:
    """The colour of task number ``k``, from 0; the palette repeats after seven."""
    return TASK_COLOURS[k % len(TASK_COLOURS)]
