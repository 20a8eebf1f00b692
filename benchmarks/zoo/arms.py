"""The ways in which each public code is trained: its own sum, and balanced in several ways."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, final

import torch
from torch import Tensor

import gaba
from entry import Entry, changed
from gaba.record import Finding

Name: TypeAlias = Literal["own", "gaba", "naive", "paper", "uncertainty", "observe"]
NAMES: tuple[Name, ...] = ("own", "gaba", "naive", "paper", "uncertainty", "observe")
"""``gaba``, ``paper`` and ``uncertainty`` leave out what a sensible user leaves out, ``naive`` is
the default method with every term balanced, ``observe`` only looks on."""


@final
class PlainSum:
    """The code's own sum, where the training loop is ours."""

    def backward(self, losses: Mapping[str, Tensor | None], *_: Any, **__: Any) -> None:
        """One backward pass of the sum of what is there."""
        self(losses).backward()

    def __call__(self, losses: Mapping[str, Tensor | None]) -> Tensor:
        """The sum of what is there."""
        terms = [loss for loss in losses.values() if loss is not None]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total


@final
class Arm:
    """One way to train a code, and what was seen on the way.

    Args:
        name: which way, such as ``"gaba"``, or ``"gaba@limit=32"`` with a setting, or any
            other method of the catalogue.
        entry: of the code.
    """

    def __init__(self, name: str, entry: Entry) -> None:
        self.kind, *changes = name.split("@")
        if self.kind not in NAMES:
            gaba.methods.find(self.kind)  # says which names there are
        self.entry = entry
        pairs = (change.split("=") for change in changes)
        self._changes = {key: float(value) for key, value in pairs}
        self.seconds = 0.0
        self.warned: list[str] = []
        self._balancers: list[gaba.Balancer] = []

    @staticmethod
    def possible(name: str, entry: Entry) -> bool:
        """Whether this way says anything of the code: with fewer than two tasks, few do."""
        name = name.partition("@")[0]
        if name in ("own", "observe"):
            return True
        return bool(entry.fixed) if name == "naive" else len(entry.tasks) > 1

    @property
    def own(self) -> bool:
        """Whether the code is trained as its authors wrote it."""
        return self.kind == "own"

    def balancer(self, shared: Any, **settings: Any) -> Any:
        """What stands in the code in place of its sum: ``.backward(losses)``, ``(losses)``."""
        if self.own:
            return PlainSum()
        tasks, fixed = self.entry.tasks, dict.fromkeys(self.entry.fixed, 1.0)
        if self.kind == "naive" or len(tasks) < 2:
            tasks, fixed = self.entry.terms, {}
        name = {"naive": "gaba"}.get(self.kind, self.kind)
        method = gaba.methods.get(name, tasks, shared, **self._changes) if self._changes else name
        made = gaba.Balancer(tasks, shared, method, fixed=fixed or None, **settings)
        self._balancers.append(made)
        return made

    def change(self, function: Callable[..., Any], lines: Mapping[str, str], **names: Any) -> Any:
        """The public function, with these lines changed unless it is the code's own turn."""
        return function if self.own else changed(function, lines, **names)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Around the training: takes its processor time, and the warnings that gaba gives."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            begin = time.process_time()
            yield
            self.seconds += time.process_time() - begin
        inside = str(Path(gaba.__file__).parent)
        ours = [w for w in caught if w.filename.startswith(inside) or "gaba" in str(w.message)]
        self.warned += [str(w.message) for w in ours]

    def seen(self) -> dict[str, Any]:
        """What the balancers say at the end, for the store."""
        if not self._balancers:
            return {}
        found = [balancer.diagnose() for balancer in self._balancers]
        history = self._balancers[0].history
        told = [f for one in found for f in one.findings if f.kind in ("amplified", "spared")]
        return {
            "verdict": found[0].verdict,
            "kinds": sorted({kind for one in found for kind in one.kinds}),
            "named": sorted({task for finding in told for task in _tasks(finding)}),
            "multipliers": self._balancers[0].multipliers,
            "largest": {
                task: float(torch.tensor(history.multipliers)[:, k].nan_to_num().max())
                for k, task in enumerate(history.tasks)
            },
            "engines": sorted(set(history.engines.tolist()) - {""}),
            "imbalance": _median(history.imbalance[history.measured]),
        }


def _tasks(finding: Finding) -> list[str]:
    return cast(list[str], finding.figures["tasks"])


def _median(values: Any) -> float | None:
    found = torch.tensor(values, dtype=torch.float64)
    found = found[found.isfinite()]
    return float(found.median()) if len(found) else None
