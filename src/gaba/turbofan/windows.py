"""From a fleet to training and evaluation data: splits, normalisation, windows, labels."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, final

import numpy as np
import pandas as pd

from gaba.turbofan._checks import check
from gaba.turbofan.fleet import CMAPSS, SETTINGS, Fleet
from gaba.turbofan.normalise import Normaliser

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

HEALTH = ("normal", "degrading", "critical")
"""The health classes, by number."""

WINDOW = 30
"""The cycles in a window, by default."""


@final
@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of consecutive cycles and the labels at the last cycle of each.

    Attributes:
        inputs: Normalised settings and sensors, float32, (N, length, inputs); C-MAPSS has 17, the
            :data:`~gaba.turbofan.fleet.INPUTS`.
        rul: Remaining useful life, capped, in cycles, float32, (N,).
        rul_raw: Remaining useful life, not capped, in cycles, float32, (N,).
        health: Index into :data:`HEALTH`, int64, (N,).
        unit: The engine, int64, (N,).
        cycle: The last cycle of the window, int64, (N,).
    """

    inputs: NDArray[np.float32]
    rul: NDArray[np.float32]
    rul_raw: NDArray[np.float32]
    health: NDArray[np.int64]
    unit: NDArray[np.int64]
    cycle: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of windows."""
        return len(self.inputs)

    def take(self, rows: ArrayLike) -> Windows:
        """The windows at ``rows``, an index or a mask."""
        rows = np.asarray(rows)
        return Windows(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@final
@dataclass(frozen=True, eq=False)
class Prepared:
    """One subset, ready for a model.

    Attributes:
        train: Windows of the training engines.
        validation: Windows of the validation engines.
        test: The last window of each test engine, in order of unit.
        test_trajectories: Every window of every test engine, in order of unit and cycle.
        normaliser: Fitted on the training engines only.
    """

    train: Windows
    validation: Windows
    test: Windows
    test_trajectories: Windows
    normaliser: Normaliser


def prepare(
    fleet: Fleet,
    *,
    seed: int = 0,
    window: int = WINDOW,
    stride: int = 1,
    cap: float = 125.0,
    validation_fraction: float = 0.2,
    validation_stride: int = 5,
    normaliser: Normaliser | None = None,
    conditions: int | Literal["auto"] = "auto",
    smoothing: float = 1.0,
    capped_share: float = 1.0,
) -> Prepared:
    """Split by engine, normalise, and cut windows with their labels.

    Args:
        fleet: From :func:`~gaba.turbofan.data.load` or :func:`~gaba.turbofan.own_fleet`.
        seed: Chooses the validation engines.
        window: Cycles in a window. A shorter engine gives one window, its first row repeated.
        stride: Cycles between the ends of two training windows; the last cycle always ends one.
        cap: The largest RUL label, in cycles.
        validation_fraction: The share of training engines that is held out; at least one engine.
        validation_stride: ``stride`` of the validation engines.
        normaliser: The normaliser of an earlier run; by default one is fitted to the training
            engines.
        conditions: How many operating conditions that one looks for, or ``"auto"``.
        smoothing: See :func:`smoothed`; 1 leaves the readings as they are.
        capped_share: See :func:`thinned`; applies to training and validation windows.

    Raises:
        ValueError: An argument out of range, fewer than two training engines, or a window that is
            longer than the record of every one.

    >>> from gaba.turbofan.data import load
    >>> prepared = prepare(load("simulated"))
    >>> prepared.train.inputs.shape[1:], prepared.train.inputs.dtype
    ((30, 17), dtype('float32'))
    >>> set(prepared.train.unit) & set(prepared.validation.unit)
    set()
    """
    check("window", window, above=0)
    check("stride", stride, above=0)
    check("validation_stride", validation_stride, above=0)
    check("cap", cap, above=0)
    if window > (longest := int(fleet.train.groupby("unit").size().max())):
        raise ValueError(
            f"window must be at most {longest}, the rows of the training engine with the longest "
            f"record, found {window}"
        )
    held_out = _choose_validation(fleet.train["unit"].unique(), validation_fraction, seed)
    is_validation = fleet.train["unit"].isin(held_out).to_numpy()
    train, validation = fleet.train[~is_validation], fleet.train[is_validation]
    if normaliser is None:
        normaliser = Normaliser.fit(train, fleet.columns, conditions)
    how = {"window": window, "cap": cap, "smoothing": smoothing}
    trajectories = cut(fleet.test, normaliser, fleet.rul, **how)
    seen, held = (
        thinned(cut(frame, normaliser, stride=every, **how), cap, capped_share)
        for frame, every in ((train, stride), (validation, validation_stride))
    )
    return Prepared(seen, held, last_of_each(trajectories), trajectories, normaliser)


def last_of_each(seen: Windows) -> Windows:
    """The last window of each engine; ``seen`` is in order of unit and cycle."""
    return seen.take(np.append(seen.unit[1:] != seen.unit[:-1], True))


def cut(
    frame: pd.DataFrame,
    normaliser: Normaliser,
    rul: ArrayLike = 0,
    *,
    window: int = WINDOW,
    stride: int = 1,
    cap: float = 125.0,
    smoothing: float = 1.0,
) -> Windows:
    """The windows of every engine of ``frame``, in order of unit and cycle.

    Args:
        frame: Rows in order of unit and cycle.
        normaliser: Applied to the rows first.
        rul: RUL of each engine after its last row, in cycles, (engines,); 0 if all ran to failure.
        window: Cycles in a window.
        stride: Cycles between the ends of two windows, counted back from the last cycle.
        cap: The largest RUL label, in cycles.
        smoothing: See :func:`smoothed`; 1 leaves the readings as they are.
    """
    check("smoothing", smoothing, above=0, most=1)
    inputs = normaliser.transform(frame)
    if smoothing < 1:
        inputs = smoothed(
            inputs, frame["unit"], smoothing, settings=len(normaliser.columns.settings)
        )
    unit = frame["unit"].to_numpy(dtype=np.int64)
    cycle = frame["cycle"].to_numpy(dtype=np.int64)
    first = np.flatnonzero(np.diff(unit, prepend=unit[0] - 1)) if len(unit) else np.arange(0)
    length = np.diff(np.append(first, len(unit)))
    engine = np.repeat(np.arange(len(first)), length)
    position = np.arange(len(unit)) - first[engine]
    to_end = length[engine] - 1 - position
    ends = np.flatnonzero(
        (position >= np.minimum(window, length)[engine] - 1) & (to_end % stride == 0)
    )
    rows = np.maximum(ends[:, None] + np.arange(1 - window, 1), first[engine[ends], None])
    to_last = cycle[first + length - 1][engine] - cycle
    rul_raw = (to_last + np.broadcast_to(np.asarray(rul), first.shape)[engine])[ends]
    return Windows(
        inputs=inputs[rows],
        rul=np.minimum(rul_raw, cap).astype(np.float32),
        rul_raw=rul_raw.astype(np.float32),
        health=health_class(rul_raw, normaliser.columns.thresholds(cap)),
        unit=unit[ends],
        cycle=cycle[ends],
    )


def thinned(seen: Windows, cap: float, share: float) -> Windows:
    """``seen`` without most of the windows with a capped label, so that they are ``share`` of all.

    Engines that live long have many capped windows. If those are half of the data, predictions in
    mid-life are drawn to the cap. The capped windows that stay are spread evenly.

    Args:
        seen: Windows with capped labels.
        cap: The largest RUL label, in cycles.
        share: Above 0; 1 keeps every window.

    >>> from gaba.turbofan.data import load
    >>> every = prepare(load("simulated")).train
    >>> fewer = thinned(every, cap=125.0, share=0.15)
    >>> round(float((fewer.rul == 125).mean()), 2), int((fewer.rul < 125).sum())
    (0.15, 9981)
    """
    check("capped_share", share, above=0, most=1)
    capped = np.flatnonzero(seen.rul >= cap)
    below = len(seen) - len(capped)
    count = len(capped) if share == 1 or below == 0 else int(below * share / (1 - share))
    if count >= len(capped):
        return seen
    keep = seen.rul < cap
    keep[capped[np.linspace(0, len(capped) - 1, count).round().astype(np.int64)]] = True
    return seen.take(np.flatnonzero(keep))


def smoothed(
    inputs: NDArray[np.float32], unit: ArrayLike, share: float, *, settings: int = len(SETTINGS)
) -> NDArray[np.float32]:
    """Sensors averaged over the past of their engine, the latest cycles most.

    z̄_t = Σ_{i≤t} (1 − α)^{t−i} z_i / Σ_{i≤t} (1 − α)^{t−i}: an exponential average, unbiased from
    the first cycle on. The settings stay as they are.

    Args:
        inputs: Normalised inputs of each row, settings first, (rows, inputs), in order of unit and
            cycle.
        unit: The engine of each row, (rows,).
        share: α, the weight of a new reading; it averages over about 2/α − 1 cycles.
        settings: The number of settings.

    >>> ramp = np.repeat(np.arange(3.0, dtype=np.float32)[:, None], 17, axis=1)
    >>> smoothed(ramp, [1, 1, 2], 0.5)[:, -1].astype(float).round(4).tolist()
    [0.0, 0.6667, 2.0]
    """
    table = pd.DataFrame(inputs[:, settings:].astype(np.float64))
    means = table.groupby(np.asarray(unit), sort=False).ewm(alpha=share, adjust=True).mean()
    return np.concatenate((inputs[:, :settings], means.to_numpy()), axis=1).astype(np.float32)


def health_class(
    rul: ArrayLike, thresholds: tuple[float, float] = CMAPSS.thresholds(125.0)
) -> NDArray[np.int64]:
    """The health class of each RUL: 0 above both thresholds, 2 up to the first, 1 between them.

    Args:
        rul: In cycles, not capped.
        thresholds: The last RUL at which an engine is critical, and degrading.

    >>> health_class([81, 80, 31, 30, 0]).tolist()
    [0, 1, 1, 2, 2]
    """
    rul = np.asarray(rul)
    critical, degrading = thresholds
    return (rul <= degrading).astype(np.int64) + (rul <= critical)


def _choose_validation(units: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.int64]:
    check("validation_fraction", fraction, above=0, below=1)
    if len(units) < 2:
        raise ValueError(f"fleet must have 2 training engines to hold one out, found {len(units)}")
    count = min(max(round(fraction * len(units)), 1), len(units) - 1)
    return np.sort(np.random.default_rng(seed).choice(np.sort(units), count, replace=False))
