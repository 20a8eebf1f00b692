"""What the examples say of their figures, in the words of each field: the verdict comes first."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DIGITS = 12
"""The most digits in which two results are said to agree; rounding takes those beyond."""
AUDIBLE = 0.1
"""The tolerance of a loudness meter, in LU (EBU Tech 3341)."""
WIDTH = 100
"""Of what is printed, in characters."""


def show(*lines: str) -> None:
    """Print sentences, each from a new line, at most ``WIDTH`` characters wide."""
    for line in lines:
        print(textwrap.fill(line, WIDTH, break_on_hyphens=False, break_long_words=False))


def percent(part: float) -> str:
    """A part of 1 with one decimal.

    >>> percent(0.1264)
    '12.6%'
    """
    return f"{100 * part:.1f}%"


def listed(words: Sequence[str]) -> str:
    """Words as a sentence lists them.

    >>> listed(["class", "box", "overlap"])
    'class, box and overlap'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


# --- portfolio -----------------------------------------------------------------------------------


def agreement(ours: Any, theirs: Any, name: str) -> str:
    """To how many digits the weights (K,) equal another library's, or by how much they differ.

    >>> agreement([0.5, 0.5], [0.50001, 0.49999], "skfolio's RiskBudgeting")
    "Weights equal skfolio's RiskBudgeting to 4 digits."
    """
    told = np.asarray(theirs, np.float64)
    apart = float(np.max(np.abs(np.asarray(ours) - told) / np.abs(told)))
    digits = DIGITS if apart == 0 else min(DIGITS, math.floor(-math.log10(apart)))
    if digits < 3:
        return f"Weights differ from {name} by up to {percent(apart)}."
    return f"Weights equal {name} to {digits} digits."


def risk(shares: Any) -> str:
    """The shares (K,) of the variance: its risk contributions."""
    low, high = percent(np.min(shares)), percent(np.max(shares))
    which = f"Every stock carries {low}" if low == high else f"A stock carries {low} to {high}"
    return f"{which} of the portfolio's variance."


def gap(names: Sequence[str], one: Any, other: Any) -> str:
    """Where inverse volatility ``one`` and equal risk contribution ``other`` (K,) differ most."""
    k = int(np.argmax(np.abs(np.asarray(one) - np.asarray(other))))
    return (
        f"The two portfolios differ most for {names[k]}: {100 * one[k]:.2f}% by inverse "
        f"volatility, {100 * other[k]:.2f}% by equal risk contribution."
    )


def trading(turnovers: tuple[float, float], volatilities: tuple[float, float]) -> str:
    """What an EMA over the months does to turnover and volatility, (before, after)."""
    traded = _moved("monthly one-way turnover", turnovers)
    risky = _moved("volatility", volatilities)
    return f"An EMA of the monthly volatilities {traded} and {risky} a year."


def _moved(what: str, values: tuple[float, float]) -> str:
    old, new = map(percent, values)
    if old == new:
        return f"leaves {what} at {old}"
    return f"{'cuts' if values[1] < values[0] else 'raises'} {what} from {old} to {new}"


# --- mixing --------------------------------------------------------------------------------------


def faders(before: Mapping[str, float], after: Mapping[str, float], level: float) -> list[str]:
    """Whether the stems heard have the wanted loudness (LUFS), and what each fader does."""
    off = max(abs(value - level) for value in after.values())
    recorded = [before[name] for name in after]
    apart = f"recorded {max(recorded) - min(recorded):.1f} LU apart"
    said = f"All {len(after)} audible stems, {apart}, play at {level:.1f} LUFS behind their faders."
    if off > AUDIBLE:
        said = f"The stems, {apart}, miss {level:.1f} LUFS behind their faders by {off:.1f} LU."
    rows = [
        f"  {name:6} {before[name]:6.1f} LUFS, fader {value - before[name]:+6.1f} dB"
        for name, value in after.items()
    ]
    silent = [name for name in before if name not in after]
    return [
        said,
        *rows,
        *(f"  {name:6}   silent (below -70 LUFS), fader left at 0 dB" for name in silent),
    ]


def summed(total: float, level: float, heard: int, guard: float) -> str:
    """Whether a mix of ``total`` LUFS has the loudness of ``heard`` unrelated stems.

    ``guard`` is what the whole mix was turned down by, in dB, 0 or less.
    """
    wanted = level + 10 * math.log10(heard) + guard
    lowered = f" - {-guard:.2f}" if guard < 0 else ""
    verb = "as" if abs(total - wanted) <= AUDIBLE else f"{abs(total - wanted):.2f} LU off what"
    return (
        f"The mix has {total:.2f} LUFS, {verb} {heard} unrelated stems add up to: "
        f"{level:g} + 10 log10({heard}){lowered} = {wanted:.2f} LUFS."
    )


def headroom(peak: float, ceiling: float, guard: float) -> str:
    """The true peak (dBTP) of a mix that the guard turned down by ``guard`` dB, 0 or less."""
    said = f"Its true peak is {peak:.1f} dBTP"
    if guard < 0:
        return f"{said}: the mix was turned down by {-guard:.1f} dB for the {ceiling:g} dBTP limit."
    return f"{said}, below the limit of {ceiling:g} dBTP: the mix was not turned down."


# --- ensembles -----------------------------------------------------------------------------------


def skill(errors: Mapping[str, float], weights: Mapping[str, float], warm: float) -> list[str]:
    """Which weighting has the least error (K), which the most, and what the warm model weighs."""
    ranked = sorted(errors, key=lambda name: errors[name])
    best, worst = ranked[0], ranked[-1]
    rows = [
        f"  {name:16} RMSE {errors[name]:.2f} K, weight of the warm model {percent(weights[name])}"
        for name in ranked
    ]
    trust = f"it gives {percent(weights[worst])} of the weight to the model"
    return [
        f"{best.capitalize()} is best out of sample: RMSE {errors[best]:.2f} K.",
        f"{worst.capitalize()} is worst, {errors[worst]:.2f} K: {trust} that is {warm:g} K too "
        "warm.",
        *rows,
    ]


# --- dosing --------------------------------------------------------------------------------------


def doses(given: Mapping[str, float], alone: Mapping[str, float], effect: float) -> list[str]:
    """The doses (mg) beside those with the ``effect`` alone, and their combination index."""
    parts = {name: given[name] / alone[name] for name in given}
    low, high = percent(min(parts.values())), percent(max(parts.values()))
    which = low if low == high else f"{low} to {high}"
    rows = [
        f"  {name:6} {given[name]:#.3g} mg; alone it takes {alone[name]:#.3g} mg" for name in given
    ]
    index = f"{sum(parts.values()):.3f}"
    kind = "additive" if index == "1.000" else "not additive"
    return [
        f"Each drug is given at {which} of the dose that has the effect alone.",
        f"Together they have an effect of {percent(effect)}; Loewe's combination index is {index}: "
        f"{kind}.",
        *rows,
    ]


def unequal(alone: Mapping[str, float]) -> str:
    """What each drug would do if all had the same dose in mg."""
    potency = {name: 1 / dose for name, dose in alone.items()}
    total = sum(potency.values())
    told = listed([f"{percent(one / total)} to {name}" for name, one in potency.items()])
    return f"At equal doses in mg the effect would be due {told}."


# --- federated -----------------------------------------------------------------------------------


def clients(accuracies: tuple[float, float], shares: tuple[float, float], rounds: int) -> list[str]:
    """FedAvg beside equal updates: accuracy on new data, and the fast client's part of the step."""
    plain, equal = map(percent, accuracies)
    reached = f"{equal} test accuracy, FedAvg {'the same' if plain == equal else plain}"
    return [
        f"Weighted to equal length, the updates reach {reached}, in {rounds} rounds.",
        f"Client 0 makes up {percent(shares[0])} of all updates by length under FedAvg, "
        f"{percent(shares[1])} at equal length.",
    ]


# --- rewards and detection -----------------------------------------------------------------------


def pulls(names: Sequence[str], where: str, plain: str, apart: tuple[float, float]) -> str:
    """How many times the largest gradient is the smallest, for ``plain`` weights and balanced."""
    verb = "closer" if apart[1] < apart[0] else "no closer"
    return (
        f"Balancing brings the weighted gradients of {listed(names)} on {where} {verb}: the "
        f"largest is {apart[1]:.1f} times the smallest, {plain} {apart[0]:.1f} times (median)."
    )


def collected(names: Sequence[str], plain: Any, balanced: Any) -> str:
    """The return of each component in a greedy episode, for both agents."""
    said = [
        ", ".join(f"{name} {value:.1f}" for name, value in zip(names, found, strict=True))
        for found in (plain, balanced)
    ]
    end = "in an episode without exploration"
    if said[0] == said[1]:
        return f"Both agents collect the same {end}: {said[0]}."
    return f"The agents differ {end}: {said[1]} balanced; {said[0]} unweighted."


def precision(plain: float, balanced: float, images: int, steps: int) -> str:
    """The mean average precision at IoU 0.50 of both detectors, parts of 1, on new images."""
    return (
        f"mAP at IoU 0.50 on {images} new images: {percent(balanced)} balanced, {percent(plain)} "
        f"with the model's own coefficients. One run of {steps} steps is too short to rank them."
    )
