"""The closed forms of the physics-informed problems, against their equations.

Derivatives are automatic and in float64; the equations are written out here as they are published,
and not taken from what trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gaba.bench.problems import pinn_helmholtz, pinn_klein_gordon, pinn_kovasznay, pinn_poisson
from gaba.bench.problems._pinn import Equation, Jet, Net, around, inside

CPU = torch.device("cpu")
EXACT = 1e-10
SOLUTIONS: dict[type[Equation], Callable[[Tensor], Tensor]] = {
    pinn_helmholtz.HelmholtzEquation: pinn_helmholtz.solution,
    pinn_klein_gordon.KleinGordonEquation: pinn_klein_gordon.solution,
    pinn_kovasznay.KovasznayEquation: pinn_kovasznay.solution,
    pinn_poisson.PoissonEquation: pinn_poisson.solution,
}


def derivative(values: Tensor, points: Tensor, *, order: int = 1, along: int) -> Tensor:
    for _ in range(order):
        (gradient,) = torch.autograd.grad(values.sum(), points, create_graph=True)
        values = gradient[:, along]
    return values


def largest(values: Tensor) -> float:
    return float(values.detach().abs().max())


def scattered(low: tuple[float, float], high: tuple[float, float], count: int = 400) -> Tensor:
    spread = torch.rand(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    corner = torch.tensor(low, dtype=torch.float64)
    return (corner + spread * (torch.tensor(high, dtype=torch.float64) - corner)).requires_grad_()


# -- the closed forms ----------------------------------------------------------------------------


def test_the_solution_of_helmholtz_equation_satisfies_it() -> None:
    points = scattered((-1, -1), (1, 1))
    x, y = points.unbind(dim=1)
    u = pinn_helmholtz.solution(points)
    laplacian = sum(derivative(u, points, order=2, along=k) for k in (0, 1))
    right = (1 - 17 * math.pi**2) * torch.sin(math.pi * x) * torch.sin(4 * math.pi * y)
    assert largest(laplacian + u - right) < EXACT
    assert largest(pinn_helmholtz.source(points) - right) < EXACT
    assert largest(u) > 0.9


def test_the_solution_of_helmholtz_equation_is_zero_on_the_boundary() -> None:
    along = torch.linspace(-1, 1, 101, dtype=torch.float64)
    for side in (-1.0, 1.0):
        fixed = torch.full_like(along, side)
        for pair in ((fixed, along), (along, fixed)):
            assert largest(pinn_helmholtz.solution(torch.stack(pair, dim=1))) < EXACT


def test_the_solution_of_the_klein_gordon_equation_satisfies_it() -> None:
    points = scattered((0, 0), (1, 1))
    t, x = points.unbind(dim=1)
    u = pinn_klein_gordon.solution(points)
    u_tt, u_xx = (derivative(u, points, order=2, along=k) for k in (0, 1))
    wave = x * torch.cos(5 * math.pi * t)
    cube = (t * x) ** 3
    right = -25 * math.pi**2 * wave + 6 * t * x**3 - 6 * x * t**3 + (wave + cube) ** 3
    assert largest(u_tt - u_xx + u**3 - right) < EXACT
    assert largest(pinn_klein_gordon.source(points) - right) < EXACT
    assert largest(right) > 200


def test_the_solution_of_the_klein_gordon_equation_keeps_its_conditions() -> None:
    line = torch.linspace(0, 1, 101, dtype=torch.float64)
    start = torch.stack([0 * line, line], dim=1).requires_grad_()
    u = pinn_klein_gordon.solution(start)
    assert largest(u - line) < EXACT
    assert largest(derivative(u, start, along=0)) < EXACT
    left, right = (torch.stack([line, 0 * line + side], dim=1) for side in (0.0, 1.0))
    assert largest(pinn_klein_gordon.solution(left)) < EXACT
    expected = torch.cos(5 * math.pi * line) + line**3
    assert largest(pinn_klein_gordon.solution(right) - expected) < EXACT


def test_kovasznays_flow_satisfies_the_equations_of_navier_and_stokes() -> None:
    points = scattered((-0.5, -0.5), (1, 1.5))
    u, v, p = pinn_kovasznay.solution(points).unbind(dim=1)
    for carried, k in ((u, 0), (v, 1)):
        first = [derivative(carried, points, along=j) for j in (0, 1)]
        second = sum(derivative(carried, points, order=2, along=j) for j in (0, 1))
        residual = u * first[0] + v * first[1] + derivative(p, points, along=k) - second / 40
        assert largest(residual) < EXACT
        assert largest(first[0]) > 0.1
    continuity = derivative(u, points, along=0) + derivative(v, points, along=1)
    assert largest(continuity) < EXACT


def test_kovasznays_flow_is_the_one_of_reynolds_number_40() -> None:
    """λ as literature tabulates it; the flow is uniform far behind, and periodic across."""
    assert pytest.approx(-0.9637405441957689, abs=1e-13) == pinn_kovasznay.DECAY
    far = torch.tensor([[40.0, 0.3]], dtype=torch.float64)
    assert pinn_kovasznay.solution(far)[0].tolist() == pytest.approx([1, 0, 0.5], abs=EXACT)
    points = scattered((-0.5, -0.5), (1, 1.5)).detach()
    above = points + torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(pinn_kovasznay.solution(points), pinn_kovasznay.solution(above))


# -- what is trained -----------------------------------------------------------------------------


def jet_of(solution: Callable[[Tensor], Tensor], equation: Equation, points: Tensor) -> Jet:
    """The derivatives of a closed form, one component after the other."""
    values = solution(points)
    whole = values if values.ndim == 2 else values[:, None]
    parts: list[tuple[Tensor, ...]] = []
    for u in whole.unbind(dim=1):
        p, q = (derivative(u, points, along=k) for k in (0, 1))
        second = torch.zeros_like(u)
        for k, c in enumerate(equation.coefficients):
            second = second + c * derivative(u, points, order=2, along=k)
        parts.append((u, p, q, second))
    rows = (torch.stack(row, dim=1) for row in zip(*parts, strict=True))
    return Jet(*(row if values.ndim == 2 else row[:, 0] for row in rows))


@pytest.mark.parametrize("kind", list(SOLUTIONS))
def test_the_closed_form_has_no_loss_and_another_function_has_one(kind: type[Equation]) -> None:
    equation, solution = kind(), SOLUTIONS[kind]
    drawn = equation.draw(torch.Generator().manual_seed(0))
    points = {task: x.double().requires_grad_() for task, x in drawn.items()}
    exact = {task: jet_of(solution, equation, x) for task, x in points.items()}
    losses = equation.each(exact, points)
    assert list(losses) == list(equation.tasks)
    assert all(loss.shape == (len(points[task]),) for task, loss in losses.items())
    assert all(largest(loss) < EXACT**2 for loss in losses.values())

    def moved(x: Tensor) -> Tensor:
        away = 0.01 * x.prod(dim=1).exp()
        return solution(x) + (away if equation.components == 1 else away[:, None])

    others = {task: jet_of(moved, equation, x) for task, x in points.items()}
    assert all(
        float(loss.detach().mean()) > 1e-7 for loss in equation.each(others, points).values()
    )


@pytest.mark.parametrize("kind", list(SOLUTIONS))
def test_what_a_model_is_judged_by_is_the_closed_form(kind: type[Equation]) -> None:
    equation = kind()
    seen: list[set[tuple[float, ...]]] = []
    for split in ("validation", "test"):
        judges = equation.judges(split)
        assert list(judges) == list(equation.tasks)
        for judge in judges.values():
            assert judge.truth.dtype == torch.float64
            torch.testing.assert_close(judge.truth, SOLUTIONS[kind](judge.points))
        seen.append({tuple(p) for judge in judges.values() for p in judge.points.tolist()})
    assert not seen[0] & seen[1]


BOXES = [((-1.0, 1.0), (-1.0, 1.0)), ((-0.5, 1.0), (-0.5, 1.5))]


@pytest.mark.parametrize("box", BOXES)
def test_points_lie_inside_the_box_and_a_quarter_on_each_of_its_sides(
    box: tuple[tuple[float, float], tuple[float, float]],
) -> None:
    generator = torch.Generator().manual_seed(0)
    for points in (inside(generator, 4000, box), around(generator, 4000, box)):
        for k, (low, high) in enumerate(box):
            assert bool(((points[:, k] >= low) & (points[:, k] <= high)).all())
            assert float(points[:, k].mean()) == pytest.approx((low + high) / 2, abs=0.05)
    edge = around(generator, 400, box)
    counts = [int((edge[:, k] == side).sum()) for k in (0, 1) for side in box[k]]
    assert counts == [100] * 4


def test_the_points_of_the_klein_gordon_equation_lie_where_its_conditions_hold() -> None:
    points = pinn_klein_gordon.KleinGordonEquation().draw(torch.Generator().manual_seed(0))
    assert bool((points["initial"][:, 0] == 0).all())
    assert points["boundary"][:, 1].unique().tolist() == [0, 1]
    assert all(0 <= float(x.min()) <= float(x.max()) <= 1 for x in points.values())


def test_a_network_of_several_components_gives_the_derivatives_of_each() -> None:
    torch.manual_seed(0)
    net = Net((1.0, -0.5), 3).double()
    points = torch.randn(20, 2, dtype=torch.float64, requires_grad=True)
    jet = Jet(*net(points))
    assert all(row.shape == (20, 3) for row in jet)
    for k in range(3):
        u = jet.u[:, k]
        torch.testing.assert_close(jet.p[:, k], derivative(u, points, along=0))
        torch.testing.assert_close(jet.q[:, k], derivative(u, points, along=1))
        second = derivative(u, points, order=2, along=0)
        second = second - 0.5 * derivative(u, points, order=2, along=1)
        torch.testing.assert_close(jet.second[:, k], second)


def test_the_errors_of_several_components_are_taken_together() -> None:
    problem = pinn_kovasznay.Kovasznay()
    session = problem.start(0, CPU)
    judge = pinn_kovasznay.KovasznayEquation().judges("test")["residual"]
    with torch.no_grad():
        found = session.model(judge.points.float())[0].double()
    expected = torch.linalg.norm(found - judge.truth) / torch.linalg.norm(judge.truth)
    assert session.evaluate("test")["relative_l2"] == pytest.approx(float(expected), rel=1e-5)
