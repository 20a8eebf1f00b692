"""A simulated fleet in the C-MAPSS format, for when you do not have the real data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gaba.extras import needs
from gaba.turbofan._checks import check
from gaba.turbofan.fleet import COLUMNS, DECIMALS, SIMULATED, Fleet

with needs("gaba.turbofan needs", "turbofan", "pandas"):
    import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONDITIONS = np.array(
    [
        [0.0, 0.00, 100.0],
        [10.0, 0.25, 100.0],
        [20.0, 0.70, 100.0],
        [25.0, 0.62, 60.0],
        [35.0, 0.84, 100.0],
        [42.0, 0.84, 100.0],
    ]
)
"""The settings of each operating condition (altitude in 1000 ft, Mach, throttle), (6, 3)."""

JITTER = np.array([0.004, 0.0005, 0.0])
"""The largest deviation of each setting from its condition, (3,)."""

# Rounded averages over the first 20 to 30 and the last 5 cycles of the published FD002 (readings,
# noise) and FD003 (faults: compressor, fan).
# fmt: off
NOMINAL = np.array([
    [518.67, 642.35, 1586.7, 1402.3, 14.62, 21.61, 553.98, 2388.06, 9055.0, 1.30, 47.35,
     521.93, 2388.06, 8136.4, 8.42, 0.03, 392.3, 2388, 100.00, 38.94, 23.36],
    [489.05, 604.61, 1498.5, 1305.5, 10.52, 15.49, 394.72, 2318.89, 8777.8, 1.26, 45.31,
     371.79, 2388.09, 8130.3, 8.64, 0.03, 368.8, 2319, 100.00, 28.61, 17.16],
    [491.19, 607.30, 1482.3, 1248.0, 9.35, 13.65, 334.84, 2323.94, 8722.4, 1.08, 44.28,
     315.18, 2388.07, 8060.8, 9.21, 0.02, 364.5, 2324, 100.00, 24.53, 14.71],
    [462.54, 536.69, 1259.9, 1045.9, 7.05, 9.03, 175.57, 1915.33, 8009.4, 0.94, 36.65,
     164.71, 2028.23, 7873.7, 10.88, 0.02, 306.6, 1915, 84.93, 14.30, 8.58],
    [449.44, 555.53, 1363.7, 1126.5, 5.48, 8.00, 194.62, 2222.94, 8349.2, 1.02, 41.83,
     183.18, 2388.03, 8067.2, 9.31, 0.02, 333.4, 2223, 100.00, 14.87, 8.92],
    [445.00, 549.45, 1351.2, 1122.7, 3.91, 5.71, 138.76, 2211.90, 8320.3, 1.02, 41.99,
     130.65, 2387.97, 8084.0, 9.35, 0.02, 330.2, 2212, 100.00, 10.62, 6.37],
])
"""Readings of the 21 sensors of a new engine in each condition, (6, 21)."""

NOISE = np.array([
    0.0, 0.36, 4.5, 5.9, 0.0, 0.002, 0.59, 0.053, 8.4, 0.0, 0.16,
    0.47, 0.053, 8.0, 0.026, 0.0, 1.1, 0.0, 0.0, 0.124, 0.077,
])
"""Standard deviation of each sensor's noise at sea level, (21,)."""

FAULTS = np.array([
    [0.0, 1.46, 17.2, 29.4, 0.0, 0.010, -2.48, 0.24, 37.2, 0.0, 0.88,
     -2.11, 0.24, 24.4, 0.116, 0.0, 4.6, 0.0, 0.0, -0.53, -0.31],
    [0.0, 1.05, 17.8, 25.2, 0.0, -0.016, 14.2, 0.51, 67.2, 0.015, 0.88,
     13.6, 0.51, 53.8, -0.169, 0.0, 4.6, 0.0, 0.0, 0.63, 0.38],
])
"""What each fault adds to the readings by the time of failure, at sea level, (2, 21)."""
# fmt: on

SHORTEST, USUAL, LONGEST = 130, 200, 350
"""Lives, in cycles, follow the triangular distribution over these."""

LEAST_SEEN = 20
"""The shortest record of a test engine, in cycles."""


def simulate(
    train_engines: int = 100,
    test_engines: int = 50,
    seed: int = 0,
    conditions: int = 6,
    fault_modes: int = 2,
) -> Fleet:
    """A simulated fleet with the columns of C-MAPSS; ``fleet.simulated`` is True.

    A sensor reads x = n_c + (n_c / n_0) (w d + σ ε) at cycle t of an engine with life T, in
    condition c: n is the nominal reading (condition 0 is sea level), d the change that the engine's
    fault has caused at failure, and σ ε normal noise plus an offset of the engine. The wear w grows
    exponentially, w(t) = w₀ + (1 − w₀) (e^{t/τ} − 1) / (e^{T/τ} − 1), with w₀ up to 0.1 and τ from
    0.15 T to 0.3 T. Lives run from 130 to 350 cycles. Test engines stop 5 to 150 cycles before
    failure, after at least 20 cycles.

    Args:
        train_engines: Engines that run to failure.
        test_engines: Engines that stop earlier.
        seed: Decides everything; the training engines do not depend on the number of test engines.
        conditions: Operating conditions, 1 to 6; each flight is in one of them.
        fault_modes: 1 (compressor) or 2 (compressor or fan); each engine has one fault.

    Raises:
        ValueError: An argument out of range.

    >>> fleet = simulate(train_engines=3, test_engines=2)
    >>> fleet.train["unit"].unique().tolist(), len(fleet.rul), fleet.simulated
    ([1, 2, 3], 2, True)
    """
    check("train_engines", train_engines, least=1)
    check("test_engines", test_engines, least=1)
    check("conditions", conditions, least=1, most=len(CONDITIONS))
    check("fault_modes", fault_modes, least=1, most=len(FAULTS))
    train_rng, test_rng = np.random.default_rng(seed).spawn(2)
    train_life = _draw_lives(train_rng, train_engines)
    test_life = _draw_lives(test_rng, test_engines)
    rul = test_rng.integers(5, np.minimum(150, test_life - LEAST_SEEN), endpoint=True)
    return Fleet(
        subset=SIMULATED,
        train=_run(train_rng, train_life, train_life, conditions, fault_modes),
        test=_run(test_rng, test_life, test_life - rul, conditions, fault_modes),
        rul=rul,
        simulated=True,
    )


def _draw_lives(rng: np.random.Generator, engines: int) -> NDArray[np.int64]:
    return np.rint(rng.triangular(SHORTEST, USUAL, LONGEST, engines)).astype(np.int64)


def _run(
    rng: np.random.Generator,
    life: NDArray[np.int64],
    seen: NDArray[np.int64],
    conditions: int,
    fault_modes: int,
) -> pd.DataFrame:
    """The first ``seen`` cycles of engines that would live for ``life`` cycles."""
    engine = np.repeat(np.arange(len(life)), seen)
    cycle = np.arange(len(engine)) - np.repeat(np.cumsum(seen) - seen, seen) + 1
    fault = rng.integers(0, fault_modes, len(life))
    born_with = 0.3 * rng.standard_normal((len(life), len(NOISE)))
    wear = _draw_wear(rng, life, engine, cycle)
    condition = rng.integers(0, conditions, len(engine))
    flutter = rng.standard_normal((len(engine), len(NOISE)))
    relative = NOMINAL[condition] / NOMINAL[0]
    change = wear[:, None] * FAULTS[fault[engine]] + NOISE * (flutter + born_with[engine])
    sensors = NOMINAL[condition] + relative * change
    settings = CONDITIONS[condition] + JITTER * rng.uniform(-1.0, 1.0, (len(engine), len(JITTER)))
    values = np.column_stack((engine + 1, cycle, settings, sensors))
    columns = {
        name: np.round(values[:, i], decimals)
        for i, (name, decimals) in enumerate(zip(COLUMNS, DECIMALS, strict=True))
    }
    return pd.DataFrame(columns).astype({"unit": np.int64, "cycle": np.int64})


def _draw_wear(
    rng: np.random.Generator,
    life: NDArray[np.int64],
    engine: NDArray[np.int64],
    cycle: NDArray[np.int64],
) -> NDArray[np.float64]:
    start = rng.uniform(0.0, 0.1, len(life))[engine]
    constant = (life * rng.uniform(0.15, 0.3, len(life)))[engine]
    grown = np.expm1(cycle / constant) / np.expm1(life[engine] / constant)
    return start + (1.0 - start) * grown
