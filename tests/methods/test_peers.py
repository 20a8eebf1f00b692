"""Every method of TorchJD by its name: TorchJD's own update, whatever measures the Gramian."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torchjd import aggregation as jd
from torchjd.autojac import jac_to_grad, mtl_backward

import gaba
from _made import made
from _models import TwoStage, batch, grads
from _torchjd_cases import Theirs, seeded
from gaba import methods
from gaba.extras import install
from gaba.integrations.torchjd import FromTorchJD
from gaba.measurement import ExactNorms, Measurement, OutputNorms

# of TorchJD's own solver, in the aggregators that are the oracle here
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

THEIRS: dict[str, Theirs] = {
    "pcgrad": lambda k: jd.PCGrad(),
    "gradvac": lambda k: jd.GradVac(),
    "mgda": lambda k: jd.MGDA(),
    "cagrad": lambda k: jd.CAGrad(c=0.4),
    "imtl-g": lambda k: jd.IMTLG(),
    "nash-mtl": lambda k: jd.NashMTL(n_tasks=k),
    "aligned-mtl": lambda k: jd.AlignedMTL(),
    "fairgrad": lambda k: jd.FairGrad(alpha=2.0),
    "config": lambda k: jd.ConFIG(),
    "dualproj": lambda k: jd.DualProj(),
    "upgrad": lambda k: jd.UPGrad(),
    "pcd": lambda k: jd.PCD(),
    "krum": lambda k: jd.Krum(n_byzantine=0),
    "cr-mogm": lambda k: jd.GramianWeightedAggregator(jd.CRMOGMWeighting(jd.MGDAWeighting())),
}
CASES = [(name, k) for name, k in product(THEIRS, (2, 3)) if (name, k) != ("krum", 2)]
SCALES = (30.0, 1.0, 0.3)


def model_of(k: int) -> TwoStage:
    return TwoStage(SCALES[:k], dtype=torch.float64)


def their_backward(model: TwoStage, x: Tensor, aggregator: Any) -> None:
    z = model.trunk(x)
    losses = [
        scale * (head(z) - k).square().mean()
        for k, (scale, head) in enumerate(zip(model.scales, model.heads, strict=True))
    ]
    mtl_backward(losses, features=z)
    jac_to_grad(model.trunk.parameters(), aggregator)


def test_every_peer_is_checked_here() -> None:
    peers = {name for name, method in methods.METHODS.items() if method.group == "peer"}
    assert peers == set(THEIRS)


@pytest.mark.parametrize(("name", "k"), CASES)
def test_a_peer_trains_as_torchjd_does(name: str, k: int) -> None:
    ours, theirs = model_of(k), model_of(k)
    balancer = made(name, ours.names, ours.trunk, measure="exact")
    aggregator = THEIRS[name](k)
    sgd = [torch.optim.SGD(model.parameters(), lr=1e-3) for model in (ours, theirs)]
    for i in range(2):
        x = batch(i, dtype=torch.float64)
        balancer.backward(ours.losses(x))
        seeded(i)
        their_backward(theirs, x, aggregator)
        found = grads(ours)
        rtol = 1e-4 if name == "nash-mtl" else 1e-6  # when its search ends hangs on the last bits
        for key, gradient in grads(theirs).items():
            size = float(gradient.abs().max())
            torch.testing.assert_close(found[key], gradient, rtol=rtol, atol=rtol * size / 10)
        for optimizer in sgd:
            optimizer.step()
            optimizer.zero_grad()
    parameters = zip(ours.parameters(), theirs.parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in parameters)


@pytest.mark.parametrize(
    "measure", [ExactNorms(), ExactNorms(layer="last"), OutputNorms(per_item=False)], ids=str
)
@pytest.mark.parametrize(("name", "k"), CASES)
def test_a_peer_takes_the_gramian_of_every_engine_that_gives_one(
    name: str, k: int, measure: Measurement
) -> None:
    model = model_of(k)
    balancer = made(name, model.names, model.trunk, every=2, measure=measure)
    x = batch(dtype=torch.float64)
    step = balancer.backward(model.losses(x))
    assert bool(step.finite)
    assert step.gramian is not None
    expected = FromTorchJD(THEIRS[name](k)).raw(step.gramian)
    multipliers = step.multipliers
    rtol = 1e-6 if name == "nash-mtl" else 1e-9  # when its search ends hangs on the last bits
    torch.testing.assert_close(multipliers, expected, rtol=rtol, atol=1e-12)
    found = grads(model)
    model.zero_grad()
    losses = [loss for loss in model.losses(x).values() if loss is not None]
    (torch.stack(losses) @ expected).backward()
    for key, gradient in grads(model).items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(found[key], gradient, rtol=1e-6, atol=1e-7 * size)
    again = balancer.backward(model.losses(batch(1, dtype=torch.float64)))
    assert not again.measured
    torch.testing.assert_close(again.multipliers, multipliers, rtol=1e-12, atol=0)


def test_an_engine_without_a_gramian_says_so() -> None:
    model = model_of(2)
    balancer = made("mgda", model.names, model.trunk, measure="half-batch")
    halves = {
        name: torch.stack([loss, loss])
        for name, loss in model.losses(batch(dtype=torch.float64)).items()
        if loss is not None
    }
    with pytest.raises(ValueError, match="Gramian"):
        balancer.backward(halves)


def test_heads_get_their_own_gradients_where_each_task_is_measured_in_each_step() -> None:
    model = model_of(2)

    def heads(**settings: Any) -> str:
        return made("mgda", model.names, model.trunk, **settings).method.heads

    assert heads() == heads(measure=gaba.measurement.ExactNorms()) == "plain"
    assert heads(measure="half-batch") == heads(every=2) == "weighted"
    assert heads(heads="weighted") == "weighted"


def test_settings_go_to_the_aggregator_the_bridge_and_the_balancer() -> None:
    model = model_of(3)

    def rule(name: str, **settings: Any) -> Any:
        found = made(name, model.names, model.trunk, **settings).method.rule
        assert isinstance(found, FromTorchJD)
        return found

    assert rule("cagrad", c=0.7).weighting.c == 0.7
    assert rule("pcgrad", seed=5).seed == 5
    assert rule("nash-mtl", max_norm=0.5, optim_niter=3).weighting.optim_niter == 3
    preferred = rule("config", pref_vector=torch.ones(3)).weighting
    assert preferred.pref_vector is not None
    smoothed = rule("cr-mogm", inner="cagrad", c=0.2, alpha=0.5, seed=2)
    assert (smoothed.weighting.alpha, smoothed.weighting.weighting.c, smoothed.seed) == (
        0.5,
        0.2,
        2,
    )
    longer = gaba.Balancer(model.names, model.trunk, "mgda", scale="sum", every=3).method
    assert (longer.scale, longer.every, longer.heads) == ("sum", 3, "weighted")
    with pytest.raises(TypeError, match="nonsense"):
        made("mgda", model.names, model.trunk, nonsense=1)
    with pytest.raises(ValueError, match=r"inner must be one of pcgrad, .*; found 'cr-mogm'"):
        made("cr-mogm", model.names, model.trunk, inner="cr-mogm")


def test_krum_wants_three_tasks() -> None:
    model = model_of(2)
    with pytest.raises(ValueError, match="at least 3 rows"):
        made("krum", model.names, model.trunk)


CODE = """
import importlib.util, sys
absent = sys.argv[1]
if absent == "torchjd":
    sys.modules["torchjd"] = None
else:
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == absent else find(name, *rest)
    sys.modules[absent] = None
import torch
from gaba import methods
for name in sys.argv[2:]:
    try:
        methods.get(name, ["a", "b"], torch.nn.Linear(2, 2))
    except ImportError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("absent", "names"), [("torchjd", ["mgda", "cr-mogm"]), ("ecos", ["nash-mtl"])]
)
def test_what_is_not_installed_is_one_line_that_names_the_extra(
    absent: str, names: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, absent, *names], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(names)
    compiled = absent == "ecos" and sys.version_info >= (3, 13)
    for line in lines:
        assert absent in line
        assert line.endswith("pip install ecos" if compiled else install("bench"))
