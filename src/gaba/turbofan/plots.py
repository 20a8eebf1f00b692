"""Pictures of a run: predictions, one engine, errors, the confusion matrix, and the balance.

Each function takes arrays and returns a matplotlib ``Figure``; :func:`save` writes it as a PNG.
Nothing here uses the global state of pyplot, so any thread can draw. The colours are those of Okabe
and Ito, which people with any colour vision tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from gaba.extras import needs
from gaba.record import plots as record_plots
from gaba.record.plots.beside import side_by_side
from gaba.turbofan.checkpoint import write_atomically

with needs("pictures need", "turbofan", "matplotlib"):
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from gaba import History

__all__ = [
    "Caption",
    "balance",
    "balances",
    "confusion",
    "error_histogram",
    "predictions",
    "save",
    "trajectory",
]

TRUE, PREDICTED, EARLY, LATE, NEUTRAL = "#000000", "#0072B2", "#56B4E9", "#D55E00", "#595959"


@final
@dataclass(frozen=True)
class Caption:
    """What the title of every picture says of the run: subset, method, RMSE with capped labels.

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
        return " · ".join([subset, *filter(None, [self.method]), *rmse])


def save(figure: Figure, path: Path | str) -> Path:
    """Write ``figure`` as a PNG at ``path``, whole or not at all, and return the path.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(blank(2, 1), Path(folder, "empty.png")).read_bytes()[1:4]
    b'PNG'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))
    return path


def balance(history: History, caption: Caption) -> Figure:
    """Norms, multipliers, contributions and imbalance over the steps, with a caption.

    Raises:
        ValueError: The history has no steps.
    """
    figure = record_plots.overview(history)
    figure.suptitle(f"What the balancer did\n{caption.text}", x=0.01, ha="left", fontsize=11)
    return figure


def balances(histories: Mapping[str, History], caption: Caption) -> Figure:
    """What :func:`balance` shows, for several methods side by side on common axes.

    Raises:
        ValueError: There are no methods, or the history of one has no steps.

    >>> balances({}, Caption("FD001", "small · seed 0"))
    Traceback (most recent call last):
        ...
    ValueError: histories must hold at least 1 run, found 0
    """
    figure = side_by_side(histories)
    figure.suptitle(f"What each balancer did\n{caption.text}", x=0.01, ha="left", fontsize=11)
    return figure


def blank(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, laid out so that nothing overlaps.

    >>> blank(9, 4).get_size_inches().tolist()
    [9.0, 4.0]
    """
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _dress(axes: Axes, heading: str, caption: Caption) -> None:
    axes.set_title(f"{heading}\n", loc="left", fontsize=12, fontweight="bold", pad=4)
    axes.text(0, 1.02, caption.text, transform=axes.transAxes, fontsize=10, color=NEUTRAL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)


def _pair(predicted: ArrayLike, true: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    y, t = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if y.ndim != 1 or y.shape != t.shape or not y.size:
        raise ValueError(
            "predicted and true must be two vectors of the same length, at least 1, "
            f"found shapes {y.shape} and {t.shape}: pass one value an engine or cycle in each"
        )
    return y, t


def _from_zero(axes: Axes, y: np.ndarray) -> None:
    """Show 0 and every prediction, with room for the markers."""
    axes.margins(x=0.01)
    top = axes.get_ylim()[1]
    axes.set_ylim(min(0.0, float(y.min())) - 0.02 * top, top)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def predictions(predicted: ArrayLike, true: ArrayLike, caption: Caption) -> Figure:
    """Predicted against true RUL (cycles) of the test engines, shape (N,), sorted by true RUL.

    Raises:
        ValueError: The two are not vectors of one length, or are empty.

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
    _dress(axes, "Predicted and true remaining useful life at the last cycle", caption)
    return figure


def trajectory(
    cycles: ArrayLike, predicted: ArrayLike, true: ArrayLike, caption: Caption, *, unit: int | str
) -> Figure:
    """Predicted and true RUL (cycles) of one engine ``unit`` at its ``cycles``, all of shape (N,).

    Raises:
        ValueError: The three are not vectors of one length, or are empty.

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
        x, y, color=PREDICTED, linewidth=1.6, label="predicted",
        marker="o" if x.size < 3 else None,
    )  # fmt: skip
    axes.set_xlabel("time (cycles)")
    axes.set_ylabel("remaining useful life (cycles)")
    _from_zero(axes, y)
    axes.legend(frameon=False, loc="lower left")
    _dress(axes, f"Engine {unit}: remaining useful life over its life", caption)
    return figure


def error_histogram(predicted: ArrayLike, true: ArrayLike, caption: Caption) -> Figure:
    """Histogram of the signed error d = predicted − true (cycles); the late side is d > 0.

    Raises:
        ValueError: The two are not vectors of one length, or are empty.
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
    _dress(axes, "Signed errors: the late side costs more", caption)
    return figure


def confusion(matrix: ArrayLike, classes: Sequence[str], caption: Caption) -> Figure:
    """Confusion matrix (C, C) of counts: rows are true classes, columns predicted ones.

    Raises:
        ValueError: The matrix is not square with one row a class.

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
    _dress(axes, "Health of the test engines at the last cycle", caption)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of the true class")
    return figure
