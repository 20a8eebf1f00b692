"""What a drug does alone: an effect that rises with the dose."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from gaba.extras import needs

with needs("dosing needs", "domains", "scipy"):
    from scipy.interpolate import PchipInterpolator
    from scipy.optimize import brentq


class Curve(ABC):
    """What a drug does alone: an effect that rises with the dose, from 0 at no dose.

    A subclass has ``effect`` and ``top``, and a ``dose`` if there is a closed form.

    Example:
        >>> isinstance(Hill(top=1.0, half=2.0), Curve)
        True
    """

    top: float
    """The supremum of the effect."""

    @abstractmethod
    def effect(self, dose: float) -> float:
        """The effect of ``dose`` alone."""

    def dose(self, effect: float) -> float:
        """The dose D(E) that has ``effect`` alone, to 1e-12 relative, by Brent's method.

        Raises:
            ValueError: The effect is not between 0 and ``top``.
        """
        check_effect(effect, self.top, type(self).__name__)
        high = 1.0
        while self.effect(high) < effect:
            high *= 2
            if math.isinf(high):
                raise ValueError(
                    f"{type(self).__name__}: the curve must reach the effect {effect:g}, found no "
                    f"dose that does; fix its top, {self.top:g}"
                )
        low = high / 2
        while self.effect(low) > effect:
            low /= 2
        return root(lambda dose: self.effect(dose) - effect, low, high)


@final
@dataclass(frozen=True)
class Linear(Curve):
    """An effect in proportion to the dose, E = p d.

    Args:
        potency: p, effect for a unit of dose.

    Raises:
        ValueError: The potency is not positive and finite.

    Example:
        >>> Linear(500.0).dose(1.0)
        0.002
    """

    potency: float
    top: float = math.inf

    def __post_init__(self) -> None:
        _positive("Linear: potency", self.potency)

    def effect(self, dose: float) -> float:
        """P d."""
        return self.potency * dose

    def dose(self, effect: float) -> float:
        """The dose E / p."""
        check_effect(effect, self.top, "Linear")
        return effect / self.potency


@final
@dataclass(frozen=True)
class Hill(Curve):
    """The Hill curve E = T dʰ / (cʰ + dʰ).

    Args:
        top: T, the effect that no dose reaches.
        half: c, the dose that has half of it.
        slope: h.

    Raises:
        ValueError: A number is not positive and finite.

    Example:
        >>> drug = Hill(top=1.0, half=2.0, slope=2.0)
        >>> drug.effect(2.0), drug.dose(0.5), round(drug.effect(drug.dose(0.9)), 12)
        (0.5, 2.0, 0.9)
    """

    top: float
    half: float
    slope: float = 1.0

    def __post_init__(self) -> None:
        for name in ("top", "half", "slope"):
            _positive(f"Hill: {name}", getattr(self, name))

    def effect(self, dose: float) -> float:
        """The effect T dʰ / (cʰ + dʰ)."""
        if dose == 0:
            return 0.0
        return self.top / (1 + math.exp(self.slope * (math.log(self.half) - math.log(dose))))

    def dose(self, effect: float) -> float:
        """C (E / (T − E))^(1/h)."""
        check_effect(effect, self.top, "Hill")
        return self.half * (effect / (self.top - effect)) ** (1 / self.slope)


@final
@dataclass(frozen=True)
class Measured(Curve):
    """A curve through measured points that rises between them, by monotone cubic interpolation.

    Args:
        doses: From low to high, all positive; (0, 0) is added.
        effects: Of each, rising.

    Raises:
        ValueError: The two differ in length, or one does not rise from above 0.

    Example:
        >>> drug = Measured((1.0, 2.0, 4.0), (0.2, 0.5, 0.8))
        >>> round(drug.dose(0.5), 9), drug.top
        (2.0, 0.8)
    """

    doses: Sequence[float]
    effects: Sequence[float]

    def __post_init__(self) -> None:
        for name, values in (("doses", self.doses), ("effects", self.effects)):
            rises = np.diff(np.asarray([0.0, *values])) > 0
            if len(values) != len(self.doses) or not (len(values) and rises.all()):
                raise ValueError(
                    f"Measured: {name} must rise from above 0, one a point, found {list(values)}; "
                    f"sort the points and leave out no dose"
                )

    @property
    def top(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The effect of the highest dose."""
        return float(self.effects[-1])

    def effect(self, dose: float) -> float:
        """The interpolated effect; that of the highest dose beyond it."""
        inner = min(dose, float(self.doses[-1]))
        return float(PchipInterpolator([0.0, *self.doses], [0.0, *self.effects])(inner))


def check_effect(effect: float, top: float, what: str) -> None:
    """Refuse an effect that no dose of a drug has."""
    if not 0 < effect < top:
        raise ValueError(
            f"{what}: the effect must lie between 0 and {top:g}, the most that it does alone, "
            f"found {effect:g}; ask for less, or leave it out"
        )


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(
            f"{name} must be positive and finite, found {value:g}; a drug without effect has no "
            f"dose, so leave it out"
        )


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where ``function`` is 0 between ``low`` and ``high``, to 1e-12 relative."""
    found: Any = brentq(function, low, high, xtol=1e-300, rtol=np.float64(1e-12))
    return float(found)
