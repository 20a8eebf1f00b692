"""The tracked shares settle: the bounds of ``benchmarks/controller.py``, with a few seeds."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

import gaba

SEEDS = 4
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("controller")


@pytest.mark.parametrize(
    ("section", "rows"),
    [
        ("Start", 5),
        ("One loud task", 12),
        pytest.param("Steady state", 6, marks=pytest.mark.slow),
        ("Jump", 4),
        pytest.param("Conflict", 10, marks=pytest.mark.slow),
        pytest.param("Targets", 2, marks=pytest.mark.slow),
        pytest.param("Absence", 1, marks=pytest.mark.slow),
    ],
)
def test_the_bounds_hold(controller: ModuleType, section: str, rows: int) -> None:
    found = controller.SECTIONS[section](range(SEEDS))
    assert len(found) == rows
    broken = [(row.title, row.bound, row.values) for row in found if not row.holds]
    assert not broken


def test_every_section_is_tested(controller: ModuleType) -> None:
    tested = test_the_bounds_hold.pytestmark[0].args[1]  # pyright: ignore[reportFunctionMemberAccess]
    names = [row.values[0] if hasattr(row, "values") else row[0] for row in tested]
    assert names == list(controller.SECTIONS)


@pytest.mark.parametrize("cosine", [0.0, 0.6, -0.6])
def test_a_balancer_does_the_same(controller: ModuleType, cosine: float) -> None:
    """Linear losses have the gradients of the simulation; nothing is measured with noise."""
    norms = controller.constant((20.0, 1.0), 30)
    case = controller.Situation("", norms, cosine, noise=0.0, exact=True)
    method = controller.tracking()
    trace = controller.follow(method, [case], [0])[0]
    theta = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    balancer = gaba.Balancer(["a", "b"], [theta], method.replace(every=1, rise=None))
    sine = (1 - cosine**2) ** 0.5
    for _ in range(31):  # the first step takes the exact norms; in each other one it is measured
        a, b = 20 * theta[0], cosine * theta[0] + sine * theta[1]
        balancer.backward({"a": a, "b": b})
    found = torch.stack([step.multipliers for step in balancer.history])
    torch.testing.assert_close(found[1:], trace.multipliers[0], rtol=1e-9, atol=0)


def test_never_is_beyond_every_bound(controller: ModuleType) -> None:
    imbalance = torch.tensor([[3.0, 1.5, 1.5], [1.5, 3.0, 1.5], [1.5, 1.5, 3.0], [1.0, 1.0, 1.0]])
    assert controller.settled(imbalance) == (1.0, 2.0, float("inf"), 0.0)
    assert not controller.Row("", "", 25, (1.0, float("inf"))).holds
