"""Doses of combined drugs that share one effect equally: an illustration, and no medical advice.

The norm of a drug is its potency 1 / D_i(E), where D_i(E) is the dose that has the effect E alone;
the weights are the parts of the total dose. Doses are combined by Loewe additivity, which takes
each drug for a dilution of the others. Never use this on people: toxicity, interactions and
exposure decide, and the rule knows nothing of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from gaba.domains._curves import Curve, Hill, Linear, Measured, check_effect, root
from gaba.rules import InverseNorm, Targets

__all__ = ["Curve", "Hill", "Linear", "Measured", "Split", "effect_of", "split"]


@final
@dataclass(frozen=True)
class Split:
    """How an effect is split among drugs. An illustration, and no medical advice.

    Attributes:
        effect: E.
        doses: d_i, by drug.
        parts: d_i / D_i(E), by drug; their sum is 1.
        weights: The parts of the total dose, d_i / Σd.

    Example:
        >>> found = split({"strong": Linear(3.0), "weak": Linear(1.0)}, 6.0)
        >>> found.doses, found.parts, found.weights
        ({'strong': 1.0, 'weak': 3.0}, {'strong': 0.5, 'weak': 0.5}, {'strong': 0.25, 'weak': 0.75})
    """

    effect: float
    doses: dict[str, float]
    parts: dict[str, float]
    weights: dict[str, float]


def split(
    drugs: Mapping[str, Curve], effect: float, proportions: Mapping[str, float] | None = None
) -> Split:
    """Doses that together have ``effect``; each drug does the same part. No medical advice.

    `Targets` gives weights λ for the norms g_i = 1 / D_i(E); the total dose is T = 1 / Σ λ_i g_i,
    and d_i = λ_i T. For linear potencies p_i and K drugs it is d_i = E / (K p_i). Give all doses in
    one unit.

    Args:
        drugs: What each does alone, by name.
        effect: E, above 0 and below the ``top`` of every drug.
        proportions: r_i, the parts d_i / D_i(E), up to a factor; equal by default.

    Raises:
        ValueError: There is no drug, one alone does not reach the effect, or a proportion is not
            positive or names no drug.

    Source: Loewe and Muischnek 1926; Greco, Bravo and Parsons 1995, equation 5.

    Example:
        >>> doses = split({"strong": Linear(500.0), "weak": Linear(1.0)}, 10.0).doses
        >>> {name: round(dose, 12) for name, dose in doses.items()}
        {'strong': 0.01, 'weak': 5.0}
    """
    if not drugs:
        raise ValueError("split: drugs must hold at least one, found none; give curves by name")
    ratios = dict.fromkeys(drugs, 1.0) if proportions is None else dict(proportions)
    odd = sorted(set(ratios).symmetric_difference(drugs))
    if odd:
        raise ValueError(
            f"split: proportions must name every drug, found {', '.join(odd)} in only one of the "
            f"two; give one positive number a drug"
        )
    for name, drug in drugs.items():
        check_effect(effect, drug.top, f"drug {name}")
    alone = np.array([_alone(name, drug, effect) for name, drug in drugs.items()])
    potency = 1 / alone
    weights = Targets(tuple(ratios[name] for name in drugs), InverseNorm())(potency)
    parts = weights * potency / (weights * potency).sum()
    return Split(
        effect,
        dict(zip(drugs, (parts * alone).tolist(), strict=True)),
        dict(zip(drugs, parts.tolist(), strict=True)),
        dict(zip(drugs, weights.tolist(), strict=True)),
    )


def effect_of(drugs: Mapping[str, Curve], doses: Mapping[str, float]) -> float:
    """The effect E of ``doses`` together by Loewe additivity, Σ d_i / D_i(E) = 1.

    Raises:
        ValueError: A dose is negative, not finite or names no drug; or the effect is more than the
            weakest of the drugs reaches, where Loewe additivity is not defined.

    Example:
        >>> drugs = {"a": Hill(1.0, 2.0), "b": Hill(1.0, 20.0)}
        >>> round(effect_of(drugs, {"a": 1.0, "b": 10.0}), 12)
        0.5
    """
    for name, dose in doses.items():
        if name not in drugs or not (math.isfinite(dose) and dose >= 0):
            raise ValueError(
                f"dose of {name}: must be zero or more, of one of {', '.join(drugs)}, found "
                f"{dose:g}; fix the doses"
            )
    given = {name: dose for name, dose in doses.items() if dose > 0}
    if not given:
        return 0.0

    def spare(effect: float) -> float:
        return math.fsum(dose / drugs[name].dose(effect) for name, dose in given.items()) - 1

    alone = [drugs[name].effect(dose) for name, dose in given.items()]
    low, top = max(alone), min(drugs[name].top for name in given)
    if len(given) == 1 or (low < top and spare(low) <= 0):  # alone, or nearly
        return low
    high = min(2 * low, (low + top) / 2)
    while high < top and spare(high) > 0:
        high = min(2 * high, (high + top) / 2)
    if not low < high < top:
        raise ValueError(
            f"doses: together they must stay below {top:g}, the most that every drug given can do "
            f"alone, found more; Loewe additivity is not defined there, so lower the doses"
        )
    return root(spare, low, high)


def _alone(name: str, drug: Curve, effect: float) -> float:
    try:
        dose = drug.dose(effect)
    except OverflowError:
        dose = math.inf
    if not (math.isfinite(dose) and dose > 0):
        raise ValueError(
            f"drug {name}: the dose that has the effect alone must be positive and finite, found "
            f"{dose:g}; use other units, or leave it out"
        )
    return dose
