"""Dosing: the closed form for linear potencies, and Loewe's equation by another solver else."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pytest
from scipy.optimize import fsolve

from gaba.domains.dosing import Curve, Hill, Linear, Measured, effect_of, split

POTENCIES = [(500.0, 1.0), (1.0, 1.0), (500.0, 20.0, 1.0), (1e-9, 1e9, 3.0)]


@final
@dataclass(frozen=True)
class Plain(Curve):
    """A Hill curve that keeps its closed form to itself."""

    of: Hill

    @property
    def top(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.of.top

    def effect(self, dose: float) -> float:
        return self.of.effect(dose)


def hills(seed: int, n_drugs: int) -> dict[str, Curve]:
    random = np.random.default_rng(seed)
    return {
        f"drug {k}": Hill(
            top=random.uniform(0.6, 2),
            half=10 ** random.uniform(-4, 4),
            slope=random.uniform(0.5, 4),
        )
        for k in range(n_drugs)
    }


@pytest.mark.parametrize("potencies", POTENCIES)
@pytest.mark.parametrize("effect", [1e-6, 1.0, 1e6])
def test_linear_potencies_have_a_closed_form(potencies: tuple[float, ...], effect: float) -> None:
    drugs: dict[str, Curve] = {str(p) + str(i): Linear(p) for i, p in enumerate(potencies)}
    found = split(drugs, effect)
    expected = [effect / (len(potencies) * p) for p in potencies]
    assert list(found.doses.values()) == pytest.approx(expected, rel=1e-12)
    assert effect_of(drugs, found.doses) == pytest.approx(effect, rel=1e-10)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_drugs", [1, 2, 3, 8])
def test_hill_curves_share_the_effect_equally(seed: int, n_drugs: int) -> None:
    drugs = hills(seed, n_drugs)
    for effect in (0.01, 0.3, 0.59):
        found = split(drugs, effect)
        parts = [found.doses[name] / drug.dose(effect) for name, drug in drugs.items()]
        assert parts == pytest.approx([1 / n_drugs] * n_drugs, rel=1e-12)
        assert list(found.parts.values()) == pytest.approx(parts, rel=1e-12)
        assert effect_of(drugs, found.doses) == pytest.approx(effect, rel=1e-9)
        total = sum(found.doses.values())
        assert list(found.weights.values()) == pytest.approx(
            [dose / total for dose in found.doses.values()], rel=1e-12
        )


def test_another_solver_finds_the_same_doses() -> None:
    drugs = {"a": Hill(1.0, 2.0, 1.5), "b": Hill(0.9, 30.0, 0.7), "c": Hill(1.2, 5.0)}
    found = split(dict(drugs), 0.4)

    def residual(logs: np.ndarray) -> list[float]:
        doses = np.exp(logs)
        # each third of the way along the isobole, by bisecting each curve on its own
        thirds = [
            dose / bisected(drug, 0.4) for dose, drug in zip(doses, drugs.values(), strict=True)
        ]
        return [sum(thirds) - 1, thirds[0] - thirds[1], thirds[1] - thirds[2]]

    solved: Any = fsolve(residual, np.zeros(3), xtol=1e-13)
    assert list(found.doses.values()) == pytest.approx(np.exp(solved).tolist(), rel=1e-8)


def bisected(curve: Curve, effect: float) -> float:
    low, high = 1e-9, 1e9
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if curve.effect(middle) < effect else (low, middle)
    return low


@pytest.mark.parametrize("seed", range(5))
def test_the_numerical_dose_is_the_closed_one(seed: int) -> None:
    for drug in hills(seed, 4).values():
        assert isinstance(drug, Hill)
        for part in (1e-6, 0.2, 0.5, 0.999):
            effect = part * drug.top
            assert Plain(drug).dose(effect) == pytest.approx(drug.dose(effect), rel=1e-9)
            assert drug.effect(drug.dose(effect)) == pytest.approx(effect, rel=1e-12)


def test_a_drug_combined_with_itself_is_the_drug() -> None:
    drug = Hill(1.0, 3.0, 2.2)
    drugs: dict[str, Curve] = {"one": drug, "diluted": Hill(1.0, 30.0, 2.2)}
    for dose, other in itertools.product((0.1, 2.0, 50.0), repeat=2):
        together = effect_of(drugs, {"one": dose, "diluted": other})
        assert together == pytest.approx(drug.effect(dose + other / 10), rel=1e-9)


def test_wanted_proportions() -> None:
    drugs = hills(0, 3)
    wanted = dict(zip(drugs, (1.0, 2.0, 5.0), strict=True))
    found = split(drugs, 0.4, wanted)
    assert list(found.parts.values()) == pytest.approx([1 / 8, 2 / 8, 5 / 8], rel=1e-12)
    assert effect_of(drugs, found.doses) == pytest.approx(0.4, rel=1e-9)


def test_measured_points() -> None:
    doses = np.geomspace(0.1, 100, 60)
    drug = Hill(1.0, 4.0, 1.3)
    measured = Measured(doses.tolist(), [drug.effect(dose) for dose in doses])
    assert measured.dose(0.5) == pytest.approx(4.0, rel=1e-3)
    together: dict[str, Curve] = {"points": measured, "curve": drug}
    assert split(together, 0.5).doses["points"] == pytest.approx(2.0, rel=1e-3)


def test_doses_of_nothing_and_of_one_drug() -> None:
    drugs = hills(1, 2)
    assert effect_of(drugs, {"drug 0": 0.0}) == 0
    assert effect_of(drugs, {"drug 0": 0.7, "drug 1": 0.0}) == drugs["drug 0"].effect(0.7)


@pytest.mark.parametrize("effect", [0.0, -1.0, 0.8, 5.0, math.nan, math.inf])
def test_an_effect_out_of_reach_is_refused_by_name(effect: float) -> None:
    drugs: dict[str, Curve] = {"good": Linear(1.0), "weak": Hill(0.8, 1.0)}
    with pytest.raises(ValueError, match=r"drug (good|weak): the effect must lie between 0 and"):
        split(drugs, effect)


@pytest.mark.parametrize("value", [0.0, -2.0, math.nan, math.inf])
def test_curves_need_positive_numbers(value: float) -> None:
    with pytest.raises(ValueError, match=r"Linear: potency must be positive and finite"):
        Linear(value)
    for name in ("top", "half", "slope"):
        with pytest.raises(ValueError, match=rf"Hill: {name} must be positive and finite"):
            Hill(**{"top": 1.0, "half": 1.0, "slope": 1.0, name: value})


@pytest.mark.parametrize(
    ("doses", "effects"),
    [((), ()), ((1, 1), (0.1, 0.2)), ((1, 2), (0.2, 0.2)), ((0, 1), (0.1, 0.2)), ((1, 2), (0.1,))],
)
def test_points_that_do_not_rise_are_refused(
    doses: tuple[float, ...], effects: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match=r"Measured: (doses|effects) must rise from above 0"):
        Measured(doses, effects)


def test_other_bad_input_is_refused() -> None:
    drugs = hills(0, 2)
    with pytest.raises(ValueError, match=r"at least one, found none"):
        split({}, 1.0)
    with pytest.raises(ValueError, match=r"every drug, found drug 1, other in only one"):
        split(drugs, 0.1, {"drug 0": 1.0, "other": 1.0})
    with pytest.raises(ValueError, match=r"Targets: ratios must be finite and positive, found 0"):
        split(drugs, 0.1, {"drug 0": 1.0, "drug 1": 0.0})
    for doses in ({"drug 0": -1.0}, {"drug 0": math.nan}, {"other": 1.0}):
        with pytest.raises(ValueError, match=r"must be zero or more, of one of drug 0, drug 1"):
            effect_of(drugs, doses)
    with pytest.raises(ValueError, match=r"Loewe additivity is not defined there"):
        effect_of({"a": Hill(1.0, 1.0), "b": Hill(0.5, 1.0)}, {"a": 9.0, "b": 1.0})
    with pytest.raises(ValueError, match=r"drug flat: the dose .* must be positive and finite"):
        split({"flat": Hill(1.0, 1.0, 1e-4)}, 0.9)


def test_a_curve_that_misses_its_top_is_refused() -> None:
    @final
    @dataclass(frozen=True)
    class Short(Curve):
        top: float = 2.0

        def effect(self, dose: float) -> float:
            return dose / (1 + dose) if math.isfinite(dose) else 1.0

    with pytest.raises(ValueError, match=r"Short: the curve must reach the effect 1.5"):
        Short().dose(1.5)
