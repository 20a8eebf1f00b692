"""Reports of runs to send to people: one self-contained HTML page, or Markdown with pictures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, final

import numpy as np

from gaba.record import plots
from gaba.record.cosines import median_cosines
from gaba.record.diagnosis import diagnose
from gaba.record.history import History
from gaba.record.page import Bullets, Code, Drawing, Heading, Page, Part, Table, Text

__all__ = ["Run", "html", "markdown"]

PICTURES: tuple[tuple[str, Callable[..., plots.Picture], str], ...] = (
    ("losses", plots.losses, "Losses"),
    ("norms", plots.norms, "Norms"),
    ("multipliers", plots.multipliers, "Multipliers"),
    ("contributions", plots.contributions, "Contributions"),
    ("shares", plots.shares, "Shares of the update"),
    ("imbalance", plots.imbalance, "Imbalance"),
    ("saturation", plots.saturation, "Saturation"),
    ("cosine-matrix", plots.cosine_matrix, "Who helps whom: cosines between the tasks' gradients"),
    ("cosines", plots.cosines, "The same cosines over the steps"),
)
SUMMARY = ("run", "steps", "imbalance, median", "saturated steps", "skipped steps", "step time")
TASKS = ("task", "loss", "norm", "contribution", "last multiplier", "last weight", "saturated")


@final
@dataclass(frozen=True)
class Run:
    """A run to report on.

    Attributes:
        name: what to call it.
        history: its steps, at least one.
        meta: its configuration, as the header of the record holds it.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = gaba.Balancer(["a", "b"], shared=[w], method="inverse")
        >>> step = balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
        >>> run = Run("a run", balancer.history, {"simulated": True, "seed": 0})
        >>> run.heading, run.summary()[:3]
        ('simulated data · seed 0', ('a run', '1', '1'))
        >>> run.tasks()[0]
        ('a', '2', '1.414', '2.828', '2', '0.7500', '0.0 %')
        >>> len(run.parts())
        19
        >>> page = html([run])
        >>> page.count("<figure>"), "http" in page.replace("http-equiv", "")
        (5, False)
    """

    name: str
    history: History
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """The data, method, size and seed, where the configuration has them.

        A run on simulated data is called so.
        """
        meta = dict(self.meta)
        if meta.get("simulated"):
            meta["subset"] = "simulated data"
        parts = [str(meta[name]) for name in ("subset", "method", "size") if name in meta]
        return " · ".join(parts + ([f"seed {meta['seed']}"] if "seed" in meta else []))

    def tasks(self) -> list[tuple[str, ...]]:
        """A row a task: its name, then the values that ``TASKS`` names; medians for the first."""
        at, last = self.history, self.history[-1:]
        columns = (at.losses, at.norms, at.contributions)
        return [
            (
                task,
                *(_median(column[:, k]) for column in columns),
                _figure(last.multipliers[0, k]),
                f"{last.weights[0, k]:.4f}",
                f"{100 * at.saturated[:, k].mean():.1f} %",
            )
            for k, task in enumerate(at.tasks)
        ]

    def summary(self) -> tuple[str, ...]:
        """Name, steps, median imbalance, share of saturated steps, skipped steps, step time."""
        at = self.history
        seconds = np.diff(at.times)
        typical = _median(seconds[seconds >= 0])
        return (
            self.name,
            f"{at.recorded:,}",
            _median(at.imbalance),
            f"{100 * at.saturated.any(axis=1).mean():.1f} %",
            f"{int((~at.finite).sum()):,}",
            "–" if typical == "–" else f"{typical} s",
        )

    def parts(self, prefix: str = "") -> list[Part]:
        """What a page says of this run; the names of its pictures begin with ``prefix``."""
        found = diagnose(self.history)
        settings = tuple((str(name), str(value)) for name, value in self.meta.items())
        return [
            Heading(self.name),
            *map(Text, self._intro()),
            Heading("Tasks", 3),
            Text("Medians over all steps.", quiet=True),
            Table(TASKS, tuple(self.tasks())),
            Heading("Diagnosis", 3),
            Text(found.verdict),
            *([Code(found.code)] if found.code else []),
            *([Bullets(tuple(each.text for each in found.evidence))] if found.evidence else []),
            Heading("Figures", 3),
            *self._drawings(prefix),
            *([Heading("Configuration", 3)] if settings else []),
            *([Table(("setting", "value"), settings, words=2)] if settings else []),
        ]

    def _intro(self) -> list[str]:
        at = self.history
        last = f", the last of them step {int(at.steps[-1]):,}"
        said = f"{at.recorded:,} steps of {len(at.tasks)} tasks ({', '.join(at.tasks)}){last}."
        known = at.imbalance[~np.isnan(at.imbalance)]
        middle, end = _median(at.imbalance), _figure(float(known[-1])) if len(known) else "–"
        balance = f"Imbalance: {middle} in the median step, {end} when last seen; 1 is balanced."
        about = " · ".join(f"{name}: {value}" for name, value in at.about.items())
        return [text for text in (self.heading, said, balance, about) if text]

    def _drawings(self, prefix: str) -> list[Drawing]:
        """The pictures that this history has something for."""
        at = self.history
        known = median_cosines(at) is not None
        has = {
            "cosine-matrix": known,
            "cosines": known,
            "shares": bool(np.isfinite(at.shares).any()),
            "saturation": bool(at.saturated.any()),
        }
        return [
            self._drawing(prefix + name, draw, caption)
            for name, draw, caption in PICTURES
            if has.get(name, True)
        ]

    def _drawing(self, name: str, draw: Callable[..., plots.Picture], caption: str) -> Drawing:
        def markup() -> str:
            light, dark = (_png(draw(self.history, dark=dark), 130) for dark in (False, True))
            return (
                '<picture><source media="(prefers-color-scheme: dark)" '
                f'srcset="{_data(dark)}"><img alt="{caption}" src="{_data(light)}"></picture>'
            )

        return Drawing(name, caption, markup, lambda: _png(draw(self.history), 110))


def html(runs: Sequence[Run]) -> str:
    """One page with everything in it: it needs no other file, no script and no network.

    Args:
        runs: at least one; with more, a table compares them.

    Raises:
        ValueError: there is no run, or one without steps.
    """
    return _page(runs).html()


def markdown(runs: Sequence[Run], folder: Path) -> str:
    """A Markdown page; its pictures are written into ``folder``, beside which it belongs.

    Args:
        runs: at least one; with more, a table compares them.
        folder: where the pictures go. The page names them by the last part of this path.

    Raises:
        ValueError: there is no run, or one without steps.

    Example:
        >>> markdown([], Path("pictures"))
        Traceback (most recent call last):
            ...
        ValueError: runs must be at least one, found none: name a run to report on
    """
    return _page(runs).markdown(folder)


def _page(runs: Sequence[Run]) -> Page:
    if not runs:
        raise ValueError("runs must be at least one, found none: name a run to report on")
    for run in runs:
        if not len(run.history):
            raise ValueError(f"{run.name} holds no steps yet: let the run go on for a while")
    many = len(runs) > 1
    parts: list[Part] = [Text(f"A report by gaba {metadata.version('gaba')}.", quiet=True)]
    if many:
        parts += [Heading("Runs"), Table(SUMMARY, tuple(run.summary() for run in runs))]
    for i, run in enumerate(runs, start=1):
        parts += run.parts(f"{i}-" if many else "")
    return Page(f"{len(runs)} runs" if many else runs[0].name, tuple(parts))


def _median(values: Any) -> str:
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return _figure(float(np.median(known))) if known.size else "–"


def _figure(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4g}" if math.isfinite(value) else "infinite"


def _png(picture: plots.Picture, dpi: int) -> bytes:
    file = io.BytesIO()
    picture.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
