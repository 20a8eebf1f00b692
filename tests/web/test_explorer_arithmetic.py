"""The arithmetic of the page, in the browser, against that of the library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page

import gaba
from gaba import rules, stabilisers
from gaba.measurement.tracked import effective
from gaba.multipliers import Asked, Bounds
from gaba.pieces import Seen
from gaba.state import flatten, unflatten

N_INPUTS = 200
NORM_RULES = {
    "uniform": rules.Uniform(),
    "paper": rules.Gaba(),
    "inverseNorm": rules.InverseNorm(),
    "logInverse": rules.LogInverse(),
    "rankInverse": rules.RankInverse(),
}
GRAMIAN_RULES = {
    "equalShare": rules.EqualShare(),
    "equalProjection": rules.EqualProjection(),
}


@pytest.fixture(scope="module")
def page(chromium: Browser, address: str) -> Iterator[Page]:
    page = chromium.new_page()
    page.goto(address)
    page.wait_for_function("document.documentElement.dataset.ready === 'true'")
    yield page
    page.close()


def random_norms(rng: np.random.Generator, i: int) -> np.ndarray:
    """K from 2 to 12; every fifth has a zero, every seventh ties, every eleventh is extreme."""
    K = int(rng.integers(2, 13))
    norms = 10 ** rng.uniform(-4, 4, K)
    if i % 5 == 0:
        norms[rng.integers(K)] = 0.0
    if i % 7 == 0:
        norms[:2] = norms[0]
    if i % 11 == 0:
        norms[0], norms[-1] = 1e20, 1e-23
    return norms


def random_gramian(rng: np.random.Generator, i: int) -> np.ndarray:
    """Gradients that partly agree, with lengths over four decades; every fifth has a zero one."""
    K = 2 + i % 11
    gradients = rng.normal(size=(K, K + 8)) + rng.normal() * rng.normal(size=K + 8)
    gradients *= 10 ** rng.uniform(-2, 2, (K, 1))
    if i % 5 == 0:
        gradients[rng.integers(K)] = 0.0
    return gradients @ gradients.T


def in_page(page: Page, expression: str, inputs: Any) -> Any:
    return page.evaluate(f"(inputs) => inputs.map((input) => {expression})", inputs)


def finite_in_page(page: Page, expression: str, inputs: Any) -> Any:
    """The same for finite numbers, as text: quicker than a number at a time."""
    script = f"(text) => JSON.stringify(JSON.parse(text).map((input) => {expression}))"
    return json.loads(page.evaluate(script, json.dumps(inputs, allow_nan=False)))


def test_rules_on_norms_are_those_of_the_library(page: Page) -> None:
    rng = np.random.default_rng(0)
    inputs = [random_norms(rng, i) for i in range(N_INPUTS)]
    lists = [norms.tolist() for norms in inputs]
    for name, rule in NORM_RULES.items():
        found = finite_in_page(page, f"gaba.rules.{name}(input)", lists)
        for norms, weights in zip(inputs, found, strict=True):
            np.testing.assert_allclose(weights, rule(norms), rtol=1e-12, atol=0, err_msg=name)
    for power in (0.0, 0.5, 2.0):
        found = finite_in_page(page, f"gaba.rules.inverseNorm(input, {power})", lists)
        for norms, weights in zip(inputs, found, strict=True):
            expected = rules.InverseNorm(power=power)(norms)
            np.testing.assert_allclose(weights, expected, rtol=1e-12, atol=0)


def test_rules_on_gramians_are_those_of_the_library(page: Page) -> None:
    rng = np.random.default_rng(1)
    inputs = [random_gramian(rng, i) for i in range(N_INPUTS)]
    lists = [gramian.tolist() for gramian in inputs]
    for name, rule in GRAMIAN_RULES.items():
        found = finite_in_page(page, f"gaba.rules.{name}(input)", lists)
        for first in range(11):  # all with the same K in one call
            expected = rule(np.stack(inputs[first::11]))
            np.testing.assert_allclose(
                np.array(found[first::11]), expected, rtol=1e-7, atol=1e-9, err_msg=name
            )


def test_measures_are_those_of_the_library(page: Page) -> None:
    rng = np.random.default_rng(2)
    inputs: list[dict[str, Any]] = []
    for i in range(N_INPUTS):
        gramian = random_gramian(rng, i)
        inputs.append(
            {
                "weights": rng.dirichlet(np.ones(len(gramian))).tolist(),
                "norms": np.sqrt(np.diag(gramian)).tolist(),
                "gramian": gramian.tolist(),
            }
        )
    found = in_page(
        page,
        "({ pull: gaba.rules.contributions(input.weights, input.norms),"
        " imbalance: gaba.rules.imbalance(input.weights, input.norms),"
        " shares: gaba.rules.shares(input.weights, input.gramian) })",
        inputs,
    )
    for given, got in zip(inputs, found, strict=True):
        weights, norms, gramian = (np.array(given[key]) for key in ("weights", "norms", "gramian"))
        np.testing.assert_allclose(got["pull"], gaba.contributions(weights, norms), rtol=1e-14)
        np.testing.assert_allclose(got["imbalance"], gaba.imbalance(weights, norms), rtol=1e-14)
        shares = gaba.shares(weights, gramian)
        np.testing.assert_allclose(got["shares"], shares, rtol=1e-9, atol=1e-12)


def test_nan_makes_every_weight_nan_as_in_the_library(page: Page) -> None:
    norms = [1.0, float("nan"), 2.0]
    for name, rule in NORM_RULES.items():
        found = in_page(page, f"gaba.rules.{name}(input)", [norms])[0]
        np.testing.assert_array_equal(found, rule(np.array(norms)))


SMOOTHERS: list[tuple[str, str, stabilisers.Stabiliser, bool]] = [
    ("ema", "gaba.stabilisers.ema(0.9, 3)", stabilisers.EMA(0.9), False),
    (
        "debiased",
        "gaba.stabilisers.ema(0.9, 3, { debias: true })",
        stabilisers.EMA(0.9, debias=True),
        True,
    ),
    ("log-ema", "gaba.stabilisers.logEma(0.97, 3)", stabilisers.LogEMA(0.97), True),
    ("belief", "gaba.stabilisers.belief(0.03, 3)", stabilisers.Belief(0.03), True),
    (
        "narrow belief",
        "gaba.stabilisers.belief(0.1, 3, { jump: 0.5 })",
        stabilisers.Belief(0.1, 0.5),
        True,
    ),
    ("floor", "gaba.stabilisers.floor(0.05)", stabilisers.Floor(0.05), False),
    (
        "project",
        'gaba.stabilisers.floor(0.2, "project")',
        stabilisers.Floor(0.2, mode="project"),
        False,
    ),
    ("warmup", "gaba.stabilisers.warmup(7)", stabilisers.Warmup(7), False),
]


@pytest.mark.parametrize(
    ("made", "stabiliser", "norms"), [one[1:] for one in SMOOTHERS], ids=[s[0] for s in SMOOTHERS]
)
def test_stabilisers_are_those_of_the_library(
    page: Page, made: str, stabiliser: stabilisers.Stabiliser, norms: bool
) -> None:
    rng = np.random.default_rng(3)
    values = 10 ** rng.uniform(-3, 3, (60, 3)) if norms else rng.dirichlet([0.3] * 3, 60)
    if norms:
        logs = isinstance(stabiliser, stabilisers.LogEMA | stabilisers.Belief)
        values[5, 1] = 0.0 if logs else values[5, 1]
        values[9:12, 2] *= -1 if logs else 1
        values[0, 0] *= -1 if isinstance(stabiliser, stabilisers.Belief) else 1
        values[30:, 0] = np.where(np.arange(30) % 2, 2.0, 0.5)  # errors that alternate
    found = page.evaluate(
        f"""(values) => {{
            const one = {made};
            return values.map((value) => [one(value), one.saturated ?? []]);
        }}""",
        values.tolist(),
    )
    state: Any = stabiliser.init(3)
    for value, (got, saturated) in zip(values, found, strict=True):
        expected, state = stabiliser.update(torch.from_numpy(value), state)
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-12)
        if hasattr(state, "saturated"):
            assert saturated == state.saturated.tolist()


def test_the_paper_s_preset_runs_as_in_the_library(page: Page) -> None:
    steps, norms = 2000, [5.0, 0.01]
    settings = {
        "smoothing": "weights",
        "decay": 0.99,
        "floorAt": 0.05,
        "floorMode": "renormalise",
        "warmupSteps": 100,
    }
    text = page.evaluate(
        """([norms, steps, settings]) => {
            const rows = gaba.simulate.run(Array(steps).fill(norms), settings);
            return JSON.stringify([rows, gaba.simulate.summary(rows)]);
        }""",
        [norms, steps, settings],
    )
    rows, facts = json.loads(text)
    floor = stabilisers.Floor(0.05)
    chain = stabilisers.Chain((stabilisers.Warmup(100), stabilisers.EMA(0.99), floor))
    state = chain.init(2)
    asked = torch.from_numpy(rules.Gaba()(np.array(norms)))
    saturated: list[bool] = []
    for row in rows:
        weights, state = chain.update(asked, state)
        saturated.append(bool(state[-1].saturated.any()))
        np.testing.assert_allclose(row["weights"], weights.numpy(), rtol=1e-12)
        np.testing.assert_allclose(row["multipliers"], weights.numpy(), rtol=1e-12)
        assert row["saturated"] == ("floor" if saturated[-1] else "")
    assert saturated.index(True) + 1 == 333
    assert facts["firstSaturated"] == 333
    assert facts["saturated"] == pytest.approx(np.mean(saturated))
    # the floor raises 0.00200 to 0.05, and the other weight stays at 0.998: 500 × 0.05/0.998
    assert facts["remaining"] == pytest.approx(500 * 0.05 / 0.998, rel=1e-4)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99])
def test_the_time_constant_is_that_of_the_average(page: Page, decay: float) -> None:
    """Smoothed log-norms go the part 1 − dⁿ of the way in n steps."""
    settings = {
        "smoothing": "norms",
        "decay": decay,
        "floorAt": 0,
        "floorMode": "project",
        "warmupSteps": 0,
    }
    answer = page.evaluate(
        "(settings) => gaba.simulate.stepResponse([5, 0.01], settings, { steps: 400 })", settings
    )
    expected = 1 - decay ** np.arange(1, 401)
    np.testing.assert_allclose(answer["path"], expected, rtol=1e-9)
    # 1 − dⁿ reaches 1 − 1/e at n = −1/ln d, so in the first whole step from there on
    assert answer["reached"] == int(np.ceil(-1 / np.log(decay) - 1e-9))


def settled(wanted: np.ndarray, norms: np.ndarray, bounds: Bounds) -> torch.Tensor:
    """The multipliers of the library in its first step."""
    asked = Asked(torch.from_numpy(wanted), torch.from_numpy(norms))
    return bounds.update(asked, bounds.init(len(norms)))[0]


@pytest.mark.parametrize("scale", ["simplex", "sum", "geometric", "max", "anchor"])
@pytest.mark.parametrize("limit", [None, 1000.0, 5.0])
def test_the_multipliers_are_those_of_the_library(
    page: Page, scale: Any, limit: float | None
) -> None:
    rng = np.random.default_rng(4)
    bounds = Bounds("sum", limit, anchor=0) if scale == "anchor" else Bounds(scale, limit)
    held = 0
    for _ in range(30):
        norms, wanted = 10 ** rng.uniform(-3, 3, 4), rng.dirichlet(np.ones(4))
        found = page.evaluate(
            "([scale, w, g, limit]) => gaba.multipliers(scale, w, g, limit ?? Infinity)",
            [scale, wanted.tolist(), norms.tolist(), limit],
        )
        expected = settled(wanted, norms, bounds).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        if scale == "sum":
            assert expected @ norms == pytest.approx(norms.sum(), rel=1e-9)
        held += np.isclose(np.abs(np.log(found)), np.log(limit or np.inf)).sum()
    assert (held > 10) == (limit == 5 and scale != "simplex")


def in_the_library(
    stream: np.ndarray, method: gaba.Method, **settings: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The multipliers (n, K) used for these norms (n, K), and whether one is at its limit (n,)."""
    K = stream.shape[1]
    theta = torch.nn.Parameter(torch.zeros(K, dtype=torch.float64))
    balancer = gaba.Balancer([f"task{k}" for k in range(K)], [theta], method, **settings)
    for norms in torch.from_numpy(stream):
        theta.grad = None
        balancer.backward({name: norms[k] * theta[k] for k, name in enumerate(balancer.tasks)})
    return balancer.history.multipliers, np.asarray(balancer.history.saturated.any(axis=1))


@pytest.mark.parametrize(("scale", "rise"), [("sum", 1.2), ("sum", 3.0), ("simplex", 1.05)])
def test_the_default_of_the_lab_is_the_default_of_the_library(
    page: Page, scale: Any, rise: float
) -> None:
    """Believe, invert, scale and bound; one task converges and comes back, one is beyond reach."""
    rng = np.random.default_rng(6)
    stream = np.exp(rng.normal([3, -3, 0], 0.4, (400, 3)))
    stream[100:300, 2] *= 1e-3
    stream[:, 1] *= 1e-3
    settings = {
        "smoothing": "belief",
        "decay": 0.95,
        "floorAt": 0,
        "floorMode": "renormalise",
        "warmupSteps": 0,
        "scale": scale,
        "limit": 100,
        "recover": 8,
        "rising": rise,
    }
    rows = page.evaluate(
        "([stream, settings]) => gaba.simulate.run(stream, settings)", [stream.tolist(), settings]
    )
    believe = stabilisers.Belief(1 - 0.95)
    method = gaba.methods.get("gaba", measure="exact", limit=100.0, believe=believe, rise=rise)
    multipliers, saturated = in_the_library(stream, method, scale=scale)
    np.testing.assert_allclose([row["multipliers"] for row in rows], multipliers, rtol=1e-9)
    assert [row["saturated"] == "limit" for row in rows] == saturated.tolist()
    assert saturated.any() == (scale == "sum")
    before = np.vstack([np.full((1, 3), 1 if scale == "sum" else 1 / 3), multipliers[:-1]])
    growth = multipliers / before
    assert growth.max() == pytest.approx(rise, rel=1e-9)
    assert growth.min() < 1 / 1.2


def test_the_presets_of_the_lab_have_the_bounds_of_the_library(page: Page) -> None:
    method = gaba.methods.get("gaba")
    page.get_by_role("button", name="gaba", exact=True).click()
    assert method.rise is not None
    assert page.locator("output[for=lab-rising]").inner_text() == f"{method.rise:.2f}×"
    for name, value in (("limit", method.limit), ("recover", method.recovery)):
        assert float(page.locator(f"output[for=lab-{name}]").inner_text()) == value


@pytest.mark.parametrize("start", [[5.0, 0.01], [1.0, 1.0]])
def test_a_settled_lab_starts_from_the_multipliers_of_its_norms(
    page: Page, start: list[float]
) -> None:
    """When one norm grows tenfold, the other's multiplier rises by 1.2 a step to what is asked."""
    settings = {
        "smoothing": "none",
        "decay": 0,
        "floorAt": 0,
        "floorMode": "project",
        "warmupSteps": 0,
        "scale": "sum",
        "rising": 1.2,
    }
    answer = page.evaluate(
        "([start, settings]) => gaba.simulate.stepResponse(start, settings, { steps: 30 })",
        [start, settings],
    )
    loud, quiet = start
    before, after = (loud + quiet) / 2, (10 * loud + quiet) / 2  # the pull of each task
    risen = np.minimum(after / quiet, before / quiet * 1.2 ** np.arange(1, 31))
    fallen = np.minimum(after / (10 * loud), before / loud * 1.2 ** np.arange(1, 31))
    way = np.log(risen / fallen * (quiet / loud)) / np.log(10)
    np.testing.assert_allclose(answer["path"], way, rtol=1e-9)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("scale", ["plain", "simplex", "sum"])
def test_the_descent_is_that_of_torch(page: Page, optimizer: str, scale: Any) -> None:
    norms, lr, steps = np.array([20.0, 0.05]), 0.02, 60
    path = page.evaluate(
        "(given) => gaba.simulate.descent(given)",
        {
            "optimizer": optimizer,
            "scale": scale,
            "norms": norms.tolist(),
            "lr": lr,
            "steps": steps,
        },
    )
    theta = torch.nn.Parameter(torch.tensor([1.0, -1.0] * 4, dtype=torch.float64))
    start = float(theta.detach().norm())
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    torch_optimizer = kind([theta], lr=lr)
    multipliers = torch.ones(2, dtype=torch.float64)
    if scale != "plain":
        multipliers = settled(rules.InverseNorm()(norms), norms, Bounds(scale, limit=None))
    for left in path:
        assert left == pytest.approx(float(theta.detach().norm()) / start, rel=1e-9)
        torch_optimizer.zero_grad()
        slopes = multipliers * torch.from_numpy(norms) / start
        (slopes * theta.square().sum() / 2).sum().backward()
        torch_optimizer.step()


def test_simplex_weights_shorten_an_sgd_update_and_not_one_of_adam(page: Page) -> None:
    def length(optimizer: str, scale: str) -> float:
        given = {"optimizer": optimizer, "scale": scale, "norms": [5, 0.01], "cosine": 0.3}
        return page.evaluate("(given) => gaba.simulate.updateLength({ ...given, lr: 0.01 })", given)

    assert length("sgd", "simplex") < length("sgd", "plain") / 200
    factor = float((5 + 0.01) / (2 / (1 / 5 + 1 / 0.01)))
    assert length("sgd", "sum") == pytest.approx(factor * length("sgd", "simplex"), rel=1e-9)
    assert length("adam", "sum") == pytest.approx(length("adam", "simplex"), rel=1e-3)


def test_a_cosine_is_kept_where_gradients_can_have_it(page: Page) -> None:
    """Three tasks, cosine 0.8 of 1 to 2 and 3: that of 2 and 3 lies in [2·0.64 − 1, 1]."""
    matrix = [[1, 0.8, 0.8], [0.8, 1, 0.5], [0.8, 0.5, 1]]
    low, high = page.evaluate("(c) => gaba.rules.feasibleRange(c, 1, 2)", matrix)
    assert low == pytest.approx(0.28, abs=1e-6)
    assert high == pytest.approx(1.0, abs=1e-6)
    rng = np.random.default_rng(5)
    for _ in range(50):
        raw = rng.uniform(-1, 1, (4, 4))
        cosines = (raw + raw.T) / 2
        np.fill_diagonal(cosines, 1)
        least = np.linalg.eigvalsh(cosines)[0]
        if abs(least) > 1e-6:
            found = page.evaluate("(c) => gaba.rules.feasible(c)", cosines.tolist())
            assert found == (least > 0)


SETTINGS = [
    dict(zip(("tasks", "ratio", "moves", "cosine", "jump", "optimizer"), figures, strict=True))
    for figures in [
        (2, 1.5, 10, 0, 2, "adamw"),
        (2, 500, 1.1, 0, 2, "sgd"),
        (4, 500, 1.1, 0.1, 2, "adam"),
        (2, 500, 10, -0.9, 2, "adamw"),
        (2, 500, 10, 0, 30, "sgd"),
        (3, 500, 10, 0, 2, "other"),
        (3, 500, 10, -0.8, 2, "sgd"),
        (3, 1, 1, -0.8, 20, "rmsprop"),
        (9, 500, 10, 0, 2, "adagrad"),
        (9, 500, 10, -0.8, 2, "adam"),
        (12, 50, 3, 0, 50, "other"),
    ]
]
OPTIMIZERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "other": torch.optim.Adamax,
}


class Model(torch.nn.Module):
    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        self.shared = torch.nn.Linear(4, 6)
        self.heads = torch.nn.ModuleList(torch.nn.Linear(6, 1) for _ in range(n_tasks))

    def losses(self) -> dict[str, torch.Tensor]:
        z = self.shared(torch.randn(16, 4)).tanh()
        return {
            f"task{k + 1}": 10.0**k * head(z).square().mean() for k, head in enumerate(self.heads)
        }


@pytest.mark.parametrize("figures", SETTINGS, ids=lambda f: "-".join(map(str, f.values())))
def test_every_snippet_of_the_decision_aid_runs(page: Page, figures: dict[str, Any]) -> None:
    torch.manual_seed(0)
    answer = page.evaluate("(figures) => gaba.decide(figures)", figures)
    model = Model(figures["tasks"])
    optimizer = OPTIMIZERS[figures["optimizer"]](model.parameters(), lr=1e-3)
    before = model.shared.weight.detach().clone()
    names: dict[str, Any] = {"model": model, "optimizer": optimizer, "losses": model.losses()}
    exec(compile(answer["code"], "snippet", "exec"), names)
    assert not torch.equal(before, model.shared.weight)
    kinds = {"plain": 0, "fixed": 0, "adaptive": 0}
    assert answer["kind"] in kinds
    if answer["kind"] == "adaptive":
        assert names["step"].finite
        weights = list(names["balancer"].weights.values())
        assert sum(weights) == pytest.approx(1)
    if answer["kind"] == "fixed":
        multipliers = list(names["multipliers"].values())
        assert np.prod(multipliers) == pytest.approx(1, abs=0.01)
        assert max(multipliers) / min(multipliers) == pytest.approx(figures["ratio"], rel=0.01)


def test_the_decision_aid_says_when_plain_weights_will_do(page: Page) -> None:
    figures = {"tasks": 3, "ratio": 500, "moves": 10, "cosine": 0, "jump": 2, "optimizer": "adamw"}

    def kind(**changes: Any) -> str:
        return page.evaluate("(figures) => gaba.decide(figures).kind", {**figures, **changes})

    assert kind() == "adaptive"
    assert kind(ratio=1.9) == "plain"
    assert kind(moves=1.2) == "fixed"
    assert kind(ratio=1.9, cosine=-0.9) == "adaptive"
    assert kind(tasks=2, ratio=1.9, cosine=-0.9) == "plain"


# --- the loop of tracked shares: 200 random runs -------------------------------------------------

RUNS, STEPS = 50, 30
GROUPS: list[dict[str, Any]] = [
    {"tasks": 2, "limit": 64.0, "recover": 8.0, "rising": 1.2, "rate": 0.01},
    {"tasks": 3, "limit": 4.0, "recover": 8.0, "rising": 1.2, "rate": 0.1},
    {"tasks": 4, "limit": 1000.0, "recover": 2.0, "rising": 3.0, "rate": 0.03},
    {"tasks": 6, "limit": 64.0, "recover": 100.0, "rising": 1.05, "rate": 0.3},
]


def looped(page: Page, **given: Any) -> list[list[dict[str, Any]]]:
    """The rows of the page's loop for these runs, step by step."""
    text = page.evaluate(  # as text, which is quicker than a number at a time
        """(text) => {
            const { tasks, runs, ...settings } = JSON.parse(text);
            const { tracked } = gaba.tracking;
            return JSON.stringify(runs.map((run) => run.map(tracked(tasks, settings))));
        }""",
        json.dumps(given),
    )
    return json.loads(text)


def random_gramians(rng: np.random.Generator, k: int) -> np.ndarray:
    """(RUNS, STEPS, K, K): gradients that conflict, are noisy, jump and all but vanish."""
    lengths = 10 ** rng.uniform(-2, 2, (RUNS, 1, k))
    jumps = np.where(np.arange(STEPS)[:, None] >= 15, 10 ** rng.uniform(-2, 2, (RUNS, 1, k)), 1.0)
    vanished = np.where(
        (np.arange(STEPS)[:, None] >= 20) & (rng.random((RUNS, 1, k)) < 0.1), 1e-9, 1
    )
    noise = np.exp(rng.normal(0, 0.4, (RUNS, STEPS, k)))
    steady = rng.normal(size=(RUNS, 1, k, 8)) - 0.5 * rng.normal(size=(RUNS, 1, 1, 8))
    gradients = steady + 0.3 * rng.normal(size=(RUNS, STEPS, k, 8))
    gradients = gradients * (lengths * jumps * vanished * noise)[..., None]
    return gradients @ gradients.swapaxes(-1, -2)


def tracked_in_the_library(gramians: np.ndarray, group: dict[str, Any]) -> dict[str, np.ndarray]:
    """The flow of the Balancer with the library's method; all runs advance together."""
    told = torch.from_numpy(gramians)
    k = told.shape[-1]
    settings = {"limit": group["limit"], "recovery": group["recover"]}
    method = gaba.methods.get("gaba", believe=stabilisers.Belief(group["rate"]), **settings)
    init = method.init(k)

    def update(norms: torch.Tensor, flat: dict[str, torch.Tensor]) -> Any:
        sound, new = method.update(Seen(torch.zeros_like(norms), norms), unflatten(init, flat))
        return sound, flatten(new)

    advance = torch.vmap(update)
    state = {name: v.expand(RUNS, *v.shape) for name, v in flatten(init).items()}
    used = torch.ones(RUNS, k, dtype=torch.float64)
    found: dict[str, list[torch.Tensor]] = {"multipliers": [], "shares": [], "measured": []}
    limited = []
    norms = told[:, 0].diagonal(dim1=-2, dim2=-1).sqrt()
    sound, state = advance(norms, state)
    for t in range(STEPS):
        asked = unflatten(init, state).multipliers
        used = torch.minimum(asked, group["rising"] * used)
        slopes = (told[:, t] @ used[..., None])[..., 0]
        if t > 0:
            norms = effective(slopes, used)
            sound, state = advance(norms, state)
        assert bool(sound.all())
        pulls = used * slopes
        found["multipliers"].append(used)
        found["shares"].append(pulls / pulls.sum(-1, keepdim=True))
        found["measured"].append(norms)
        limited.append(unflatten(init, state).bounds.saturated)
    stacked = {name: torch.stack(values, 1).numpy() for name, values in found.items()}
    return {**stacked, "atLimit": torch.stack(limited, 1).numpy()}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group['tasks']} tasks")
def test_the_loop_is_that_of_the_library(page: Page, group: dict[str, Any]) -> None:
    gramians = random_gramians(np.random.default_rng(group["tasks"]), group["tasks"])
    rows = looped(page, **group, runs=gramians.tolist())
    expected = tracked_in_the_library(gramians, group)
    for name, values in expected.items():
        found = np.array([[row[name] for row in run] for run in rows])
        np.testing.assert_allclose(found, values, rtol=1e-7, atol=1e-12, err_msg=name)
    assert (expected["measured"] < 0).any()  # some task worked against the update
    assert expected["atLimit"].any()
    assert not expected["atLimit"].all()


def test_a_balancer_does_the_same(page: Page) -> None:
    """Linear losses have constant gradients; three of them are measured along the update."""
    gradients = np.array([[20.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, -0.3, 0.4]])
    theta = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    balancer = gaba.Balancer(["a", "b", "c"], [theta], every=1)
    for _ in range(40):
        theta.grad = None
        losses = torch.from_numpy(gradients) @ theta
        balancer.backward(dict(zip(balancer.tasks, losses, strict=True)))
    (rows,) = looped(page, tasks=3, runs=[[(gradients @ gradients.T).tolist()] * 40])
    history = balancer.history
    np.testing.assert_allclose([row["multipliers"] for row in rows], history.multipliers, rtol=1e-6)
    assert set(history.engines[1:]) == {"products"}
    shares = [row["shares"] for row in rows[1:]]
    np.testing.assert_allclose(shares, history.shares[1:], rtol=1e-6, atol=1e-9)
    assert np.ptp(shares[-1]) < 0.02  # and it finds balance


def test_the_runs_of_the_page_are_what_the_sliders_say(page: Page) -> None:
    norms, cosine, steps = [5.0, 1.0, 0.2], -0.6, 4000
    given = {"norms": norms, "cosine": cosine, "noise": 0.5, "jump": 30, "steps": steps, "seed": 3}
    (found,) = finite_in_page(page, "gaba.tracking.gramians(input)", [given])
    found = np.array(found)
    lengths = np.sqrt(np.diagonal(found, axis1=1, axis2=2))
    lengths[steps // 2 :, 0] /= 30
    np.testing.assert_allclose(lengths.mean(0), norms, rtol=0.06)  # noise of mean 1
    np.testing.assert_allclose(np.log(lengths).std(0), 0.5, rtol=0.06)
    for i, j, expected in ((0, 1, 0.0), (0, 2, 0.0), (1, 2, cosine)):
        whole = np.sqrt(found[:, i, i] * found[:, j, j])
        np.testing.assert_allclose(found[:, i, j] / whole, expected, atol=1e-12)
    (again,) = finite_in_page(page, "gaba.tracking.gramians(input)", [{**given, "noise": 0}])
    np.testing.assert_allclose(np.diagonal(again[0]), np.square(norms), rtol=1e-12)


def test_the_page_s_default_is_the_library_s(page: Page) -> None:
    method = gaba.methods.get("gaba")
    runs = random_gramians(np.random.default_rng(9), 3)[:5].tolist()
    assert isinstance(method.believe, stabilisers.Belief)
    settings = {
        "limit": method.limit,
        "recover": method.recovery,
        "rising": method.rise,
        "rate": method.believe.rate,
    }
    assert looped(page, tasks=3, runs=runs) == looped(page, tasks=3, runs=runs, **settings)
