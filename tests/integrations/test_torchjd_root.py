"""The square root of a Gramian in the place of the Jacobian, for what TorchJD takes a Jacobian."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchjd import aggregation as jd

from gaba.rules.torchjd import FromTorchJD, Root

# of TorchJD's own solver, in the aggregators that are the oracle here
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def families(k: int) -> dict[str, Tensor]:
    """Jacobians (k, 4 k + 3)."""
    generator = torch.Generator().manual_seed(k)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    p = 4 * k + 3
    plain = normal(k, p)
    unit = plain / plain.norm(dim=1, keepdim=True)
    far = torch.logspace(-6, 6, k, dtype=torch.float64)[:, None]
    zero = plain.clone()
    zero[-1] = 0
    twice = plain.clone()
    twice[-1] = 3 * plain[0]
    return {
        "plain": plain,
        "one direction in common": plain + 5 * normal(1, p),
        "in conflict": unit - 0.9 * unit.mean(0),
        "orthogonal": torch.linalg.qr(normal(p, k)).Q.T * far,
        "norms far apart": unit * far,
        "tiny": 1e-12 * plain,
        "huge": 1e12 * plain,
        "one of them 0": zero,
        "one of them three times another": twice,
        "rank 2": normal(k, 2) @ normal(2, p),
    }


CASES = [(name, k) for k in (2, 3, 5, 10) for name in families(k)]


@pytest.mark.parametrize(("name", "k"), CASES)
def test_the_root_is_one_and_leads_back_to_weights(name: str, k: int) -> None:
    jacobian = families(k)[name]
    gramian = jacobian @ jacobian.T
    root = Root.of(gramian)
    sizes = gramian.diagonal().sqrt()
    bound = 1e-12 * sizes[:, None] * sizes
    assert bool(((root.matrix @ root.matrix.T - gramian).abs() <= bound).all())
    assert root.matrix.shape[1] == int(
        torch.linalg.matrix_rank(jacobian / (sizes[:, None] + 1e-99))
    )
    weights = torch.linspace(-1, 2, k, dtype=torch.float64)
    again = root.weights_of(root.matrix.T @ weights)
    error = (again - weights) @ jacobian
    assert float(error.norm()) <= 1e-9 * float(sizes.max())


@pytest.mark.parametrize(("name", "k"), CASES)
@pytest.mark.parametrize("preferring", [False, True])
def test_config_is_that_of_the_jacobian(name: str, k: int, preferring: bool) -> None:
    jacobian = families(k)[name]
    pref = torch.arange(1.0, k + 1).double() if preferring else None
    expected = jd.ConFIG(pref)(jacobian)
    raw = FromTorchJD(jd.ConFIG(pref)).raw(jacobian @ jacobian.T)
    assert float((raw @ jacobian - expected).norm()) <= 1e-6 * float(expected.norm())


UNSTEADY = ("one of them 0", "orthogonal", "norms far apart")
"""Where TorchJD's own NashMTL moves by up to 3 % when J is turned, which should change nothing."""


@pytest.mark.parametrize(("name", "k"), [(n, k) for n, k in CASES if k < 5 and n not in UNSTEADY])
def test_nash_mtl_is_that_of_the_jacobian(name: str, k: int) -> None:
    jacobian = families(k)[name]
    expected = jd.NashMTL(k, max_norm=0)(jacobian)
    raw = FromTorchJD(jd.NashMTL(k, max_norm=0)).raw(jacobian @ jacobian.T)
    assert float((raw @ jacobian - expected).norm()) <= 1e-6 * float(expected.norm())


@pytest.mark.parametrize("max_norm", [0.5, 2.0])
def test_the_length_that_nash_mtl_allows_is_kept(max_norm: float) -> None:
    jacobian = families(3)["plain"]
    expected = jd.NashMTL(3, max_norm=max_norm)(jacobian)
    raw = FromTorchJD(jd.NashMTL(3, max_norm=max_norm)).raw(jacobian @ jacobian.T)
    assert float((raw @ jacobian - expected).norm()) <= 1e-6 * float(expected.norm())
    assert float(expected.norm()) <= max_norm * (1 + 1e-12)


def test_a_gramian_of_zeros_gives_no_update() -> None:
    raw = FromTorchJD(jd.ConFIG()).raw(torch.zeros(3, 3).double())
    assert raw.tolist() == [0.0, 0.0, 0.0]
