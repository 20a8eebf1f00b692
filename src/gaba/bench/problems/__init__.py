"""The problems of the benchmark, one a file; :func:`gaba.bench.load` finds them by name.

What a list of them says stands here, so that listing them loads neither torch nor data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

__all__ = ["CARDS", "PROBLEMS", "Card"]


@final
@dataclass(frozen=True)
class Card:
    """What a list says of a problem.

    Attributes:
        where: the module in this folder, and what makes the problem in it.
        about: one sentence: what is predicted, and from what.
        tasks: the names of the K tasks.
        steps: how many a full run takes.

    Example:
        >>> CARDS["pinn-poisson"].tasks
        ('residual', 'boundary')
    """

    where: str
    about: str
    tasks: tuple[str, ...]
    steps: int


_GAS = "Yield (MWh) and emissions of CO and NOx (mg/m³) from eight sensors, hour by hour"
_ENGINE = "Remaining useful life, capped at 125 cycles, and one of three classes of health"

CARDS: Mapping[str, Card] = MappingProxyType(
    {
        "conflict-toy": Card(
            "conflict_toy:ConflictToy",
            "Two losses of one point in the plane, ten times apart, which pull it to opposite "
            "sides.",
            ("f1", "f2"),
            2000,
        ),
        "gas-turbine-random": Card(
            "gas_turbine:at_random", f"{_GAS}; split at random.", ("TEY", "CO", "NOX"), 2000
        ),
        "gas-turbine-time": Card(
            "gas_turbine:in_time",
            f"{_GAS}; the last years are held out.",
            ("TEY", "CO", "NOX"),
            2000,
        ),
        "multi-mnist": Card(
            "multi_mnist:MultiMnist",
            "The left digit, the right digit (cross-entropies) and the picture (mean squared "
            "error).",
            ("left", "right", "reconstruction"),
            1200,
        ),
        "multi-mnist-auxiliary": Card(
            "multi_mnist_auxiliary:MultiMnistAuxiliary",
            "The left digit; the right one and shuffled labels are helpers that do not count.",
            ("left", "right", "shuffled"),
            1200,
        ),
        "pinn-burgers": Card(
            "pinn_burgers:Burgers",
            "The equation's residual, the boundary and the initial condition, by a tanh network.",
            ("residual", "boundary", "initial"),
            3000,
        ),
        "pinn-helmholtz": Card(
            "pinn_helmholtz:Helmholtz",
            "The equation's residual and the values on the boundary, by a tanh network.",
            ("residual", "boundary"),
            3000,
        ),
        "pinn-klein-gordon": Card(
            "pinn_klein_gordon:KleinGordon",
            "The equation's residual, the boundary and the initial conditions, by a tanh network.",
            ("residual", "boundary", "initial"),
            3000,
        ),
        "pinn-kovasznay": Card(
            "pinn_kovasznay:Kovasznay",
            "The residual of Navier's and Stokes' equations and the boundary, by a tanh network.",
            ("residual", "boundary"),
            3000,
        ),
        "pinn-poisson": Card(
            "pinn_poisson:Poisson",
            "The equation's residual and the values on the boundary, by a tanh network.",
            ("residual", "boundary"),
            3000,
        ),
        "synthetic-40": Card(
            "synthetic:Synthetic",
            "Forty linear regressions, their losses over four decades, on eight shared linear "
            "features.",
            tuple(f"t{k:02}" for k in range(40)),
            1500,
        ),
        "synthetic-rare": Card(
            "synthetic_rare:SyntheticRare",
            "Six linear regressions on four features; one is seldom there, one has two labels a "
            "batch.",
            ("t0", "t1", "seldom", "sparse", "t2", "t3"),
            1500,
        ),
        **{
            f"turbofan-{subset}": Card(
                f"turbofan:{subset}",
                f"{_ENGINE}; C-MAPSS {subset.upper()}.",
                ("rul", "health"),
                500,
            )
            for subset in ("fd001", "fd002", "fd003", "fd004")
        },
    }
)
"""The problems of the benchmark by name."""

PROBLEMS: Mapping[str, str] = MappingProxyType(
    {name: f"gaba.bench.problems.{card.where}" for name, card in CARDS.items()}
)
"""The problems of the benchmark: name → where it is; imported when asked for."""
