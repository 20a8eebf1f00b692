"""What the problems claim to know: optima, the Pareto front, solutions of the equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gaba.bench.problems import pinn_burgers, pinn_poisson
from gaba.bench.problems._pinn import Jet, Net
from gaba.bench.problems.conflict_toy import STARTS, distance, front, losses, start_point
from gaba.bench.problems.synthetic import FEATURES, TASKS, Regressions, Synthetic

CPU = torch.device("cpu")
REGRESSIONS = Regressions()


def toy(points: np.ndarray) -> np.ndarray:
    x, y = torch.from_numpy(points).unbind(dim=1)
    return torch.stack(losses(x, y), dim=1).numpy()


# -- synthetic-40 ------------------------------------------------------------------------------


def weightings() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    return {
        "uniform": np.ones(TASKS),
        "inverse scale": 1 / REGRESSIONS.scales,
        "random": draw.dirichlet(np.ones(TASKS)),
    }


@pytest.mark.parametrize("which", list(weightings()))
def test_the_optimum_is_that_of_alternating_least_squares(which: str) -> None:
    """Solved without any singular value: W given the heads, then the heads given W, and so on."""
    a, pull = REGRESSIONS.coefficients, weightings()[which] * REGRESSIONS.scales
    claimed = float(pull @ REGRESSIONS.best(weightings()[which]))
    w = np.random.default_rng(0).normal(size=(FEATURES, a.shape[1]))
    heads = np.zeros((TASKS, FEATURES))
    root = np.sqrt(pull)[:, None]
    for _ in range(4000):
        heads = np.linalg.lstsq(w.T, a.T, rcond=None)[0].T
        w = np.linalg.lstsq(root * heads, root * a, rcond=None)[0]
    reached = float(pull @ ((heads @ w - a) ** 2).sum(axis=1))
    assert reached == pytest.approx(claimed, rel=1e-4)
    assert reached >= claimed * (1 - 1e-9)


def test_no_eight_features_do_better_on_average() -> None:
    a, draw = REGRESSIONS.coefficients, np.random.default_rng(1)
    best = np.linalg.svd(a)[2][:FEATURES]
    for nearness in (0.0, 1e-3, 0.1, 10.0):
        for _ in range(20):
            q = np.linalg.qr((best + nearness * draw.normal(size=best.shape)).T)[0]
            mean = ((a - a @ q @ q.T) ** 2).sum(axis=1).mean()
            assert mean >= REGRESSIONS.least_mean_excess - 1e-12


def test_the_scales_span_four_decades_and_the_tasks_compete() -> None:
    assert REGRESSIONS.scales.max() / REGRESSIONS.scales.min() == pytest.approx(1e4)
    assert np.linalg.norm(REGRESSIONS.coefficients, axis=1) == pytest.approx(np.ones(TASKS))
    assert np.linalg.matrix_rank(REGRESSIONS.coefficients) > FEATURES
    assert REGRESSIONS.best(np.ones(TASKS)).mean() > 2 * REGRESSIONS.least_mean_excess


def test_the_excess_is_what_many_examples_show() -> None:
    session = Synthetic().start(0, CPU)
    sums, batches = np.zeros(TASKS), 4000
    with torch.no_grad():
        for _ in range(batches):
            sums += np.array([float(loss) for loss in session.losses().values()])
    shown = sums / batches / REGRESSIONS.scales - REGRESSIONS.noise**2
    figures = session.evaluate("test")
    claimed = np.array([figures[f"excess_{task}"] for task in Synthetic.tasks])
    assert shown == pytest.approx(claimed, rel=0.03, abs=0.02)
    assert figures["mean_excess"] == pytest.approx(claimed.mean())
    assert figures["regret"] == pytest.approx(claimed.mean() - REGRESSIONS.least_mean_excess)


# -- conflict-toy ------------------------------------------------------------------------------


def test_no_point_dominates_the_front() -> None:
    draw, known = np.random.default_rng(0), front()
    wide = draw.uniform(-15, 15, size=(200_000, 2))
    near = np.stack([draw.uniform(-8, 8, 200_000), draw.normal(-8.36, 0.5, 200_000)], axis=1)
    found = toy(np.concatenate([wide, near]))
    # Of the points of the front whose first loss is no lower, this one has the highest second.
    at = np.searchsorted(known[::-1, 0], found[:, 0])
    highest = np.append(known[::-1, 1], -np.inf)[at]
    assert (found[:, 1] > highest - 1e-9).all()
    assert (highest > -np.inf).mean() > 0.3


def test_the_points_of_the_front_are_traded_off_against_each_other() -> None:
    first, second = front().T
    assert (np.diff(first) < 0).all()
    assert (np.diff(second) > 0).all()
    assert (front() > 0).all()


def test_the_distance_is_to_the_front() -> None:
    known = front()
    assert distance(known[700]) == pytest.approx(0, abs=1e-12)
    assert distance((known[700] + known[701]) / 2) == pytest.approx(0, abs=1e-12)
    span = np.ptp(known, axis=0)
    away = known[0] + np.array([0.0, -0.25]) * span
    assert distance(away) == pytest.approx(0.25, rel=1e-6)


def test_descent_on_a_weighted_sum_ends_on_the_front() -> None:
    at = torch.tensor([0.0, -8.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([at], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        first, second = losses(at[0], at[1])
        total = 10 * first + second
        total.backward()
        return total

    optimizer.step(closure)
    assert distance(toy(at.detach().numpy()[None])[0]) == pytest.approx(0, abs=1e-7)
    assert at.tolist() == pytest.approx([0, -8.3552], abs=2e-3)  # the line of the literature's plot


def test_the_five_starts_come_first() -> None:
    assert [tuple(start_point(seed).tolist()) for seed in range(5)] == [*STARTS]
    assert start_point(7).tolist() == start_point(7).tolist() != start_point(12).tolist()
    assert torch.dist(start_point(7), torch.tensor(STARTS[2])) < 3


# -- Burgers, Poisson --------------------------------------------------------------------------


def test_the_solution_of_burgers_equation_satisfies_it() -> None:
    draw, h = np.random.default_rng(0), 1e-4
    t, x = draw.uniform(0.01, 0.99, 400), draw.uniform(-0.99, 0.99, 400)
    x[:100] *= 0.03  # within the front

    def u(dt: float, dx: float) -> np.ndarray:
        return pinn_burgers.solution(t + dt * h, x + dx * h)

    u_t = (8 * (u(1, 0) - u(-1, 0)) - (u(2, 0) - u(-2, 0))) / (12 * h)
    u_x = (8 * (u(0, 1) - u(0, -1)) - (u(0, 2) - u(0, -2))) / (12 * h)
    u_xx = (16 * (u(0, 1) + u(0, -1)) - (u(0, 2) + u(0, -2)) - 30 * u(0, 0)) / (12 * h**2)
    terms = np.abs([u_t, u(0, 0) * u_x, pinn_burgers.VISCOSITY * u_xx]).max(axis=0)
    residual = u_t + u(0, 0) * u_x - pinn_burgers.VISCOSITY * u_xx
    assert np.abs(u_x).max() > 50
    assert (np.abs(residual) <= 1e-3 * np.maximum(terms, 1)).all()


def test_the_solution_of_burgers_equation_keeps_its_conditions() -> None:
    line, ones = np.linspace(-1, 1, 201), np.ones(201)
    u = pinn_burgers.solution
    assert u(0 * line, line) == pytest.approx(-np.sin(np.pi * line))
    assert u(1e-9 * ones, line) == pytest.approx(-np.sin(np.pi * line), abs=1e-6)
    for side in (-1.0, 1.0):
        assert u((line + 1) / 2, side * ones) == pytest.approx(0 * line, abs=1e-9)
    assert u(0.7 * ones, line) == pytest.approx(-u(0.7 * ones, -line), abs=1e-12)


def test_the_solution_of_burgers_equation_against_gauss_and_hermite() -> None:
    """The same integrals by another rule: η = 2 √(νt) z with weight exp(−z²)."""
    nodes, weights = np.polynomial.hermite.hermgauss(150)
    draw, nu = np.random.default_rng(2), pinn_burgers.VISCOSITY
    t, x = draw.uniform(0.05, 1, 200), draw.uniform(-1, 1, 200)
    angle = np.pi * (x[:, None] - 2 * np.sqrt(nu * t)[:, None] * nodes)
    f = weights * np.exp(-(np.cos(angle) + 1) / (2 * np.pi * nu))
    expected = -(np.sin(angle) * f).sum(axis=1) / f.sum(axis=1)
    assert pinn_burgers.solution(t, x) == pytest.approx(expected, abs=2e-3)


def test_the_source_of_poissons_equation_is_the_laplacian_of_its_solution() -> None:
    points = torch.rand(300, 2, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(pinn_poisson.solution(points).sum(), points, create_graph=True)
    laplacian = sum(
        torch.autograd.grad(first[:, k].sum(), points, retain_graph=True)[0][:, k] for k in (0, 1)
    )
    torch.testing.assert_close(pinn_poisson.source(points).detach(), laplacian)


def test_the_points_lie_where_they_should() -> None:
    generator = torch.Generator().manual_seed(0)
    burgers = pinn_burgers.BurgersEquation().draw(generator)
    assert (burgers["boundary"][:, 1].abs() == 1).all()
    assert (burgers["initial"][:, 0] == 0).all()
    assert (burgers["residual"][:, 0] >= 0).all()
    poisson = pinn_poisson.PoissonEquation().draw(generator)
    on_edge = poisson["boundary"].abs() == 1
    assert (on_edge.sum(dim=1) == 1).all()
    corners = {(k, float(p[k])) for p in poisson["boundary"] for k in (0, 1) if abs(p[k]) == 1}
    assert len(corners) == 4
    assert all(x.abs().max() <= 1 for x in (*burgers.values(), *poisson.values()))


@pytest.mark.parametrize("coefficients", [(0.0, 1.0), (1.0, 1.0), (2.0, -0.5)])
def test_the_network_gives_its_own_derivatives(coefficients: tuple[float, float]) -> None:
    torch.manual_seed(0)
    net = Net(coefficients).double()
    points = torch.randn(40, 2, dtype=torch.float64, requires_grad=True)
    jet = Jet(*net(points))
    (first,) = torch.autograd.grad(jet.u.sum(), points, create_graph=True)
    seconds = [
        torch.autograd.grad(first[:, k].sum(), points, retain_graph=True)[0][:, k] for k in (0, 1)
    ]
    torch.testing.assert_close(torch.stack([jet.p, jet.q], dim=1), first)
    expected = coefficients[0] * seconds[0] + coefficients[1] * seconds[1]
    torch.testing.assert_close(jet.second, expected)


def test_the_true_solution_has_no_loss() -> None:
    equation = pinn_poisson.PoissonEquation()
    points = equation.draw(torch.Generator().manual_seed(0))
    none = torch.zeros(0)
    jets = {
        task: Jet(pinn_poisson.solution(x), none, none, pinn_poisson.source(x))
        for task, x in points.items()
    }
    assert all(float(loss.max()) == 0 for loss in equation.each(jets, points).values())


def test_validation_and_test_points_differ() -> None:
    for equation in (pinn_burgers.BurgersEquation(), pinn_poisson.PoissonEquation()):
        validation, test = equation.judges("validation"), equation.judges("test")
        for task in equation.tasks:
            a, b = ({tuple(p) for p in judge[task].points.tolist()} for judge in (validation, test))
            assert not a & b
            assert len(a) > 1
            assert math.isfinite(float(validation[task].truth.abs().max()))
