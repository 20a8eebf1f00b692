"""Named mathematical properties of rules and measures, as assertions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from _inputs import permutations

Values = NDArray[np.float64]
Rule = Callable[[Any], Any]
Measure = Callable[..., Any]


def assert_on_simplex(weights: Any, *, atol: float = 1e-12) -> None:
    """No weight is negative, and they sum to 1 over the last axis, in float64."""
    values = np.asarray(weights)
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    np.testing.assert_allclose(values.sum(-1), 1.0, rtol=0, atol=atol)


def assert_all_equal(values: Any, *, rtol: float) -> None:
    """The values of the last axis are the same, to ``rtol`` of the smallest; all are positive."""
    values = np.asarray(values)
    assert (values > 0).all()
    spread = values.max(-1) / values.min(-1) - 1
    assert (spread <= rtol).all(), f"relative spread {spread.max():.3g} exceeds {rtol:g}"


def assert_equal_contributions(weights: Any, norms: Any, *, rtol: float = 1e-6) -> None:
    """Every contribution λ_k g_k is the same."""
    assert_all_equal(np.asarray(weights) * np.asarray(norms), rtol=rtol)


def share_parts(weights: Any, gramian: Any) -> Values:
    """λ_k (Gλ)_k, with the rows summed one product at a time."""
    weights, gramian = np.asarray(weights), np.asarray(gramian)
    return weights * np.einsum("...kl,...l->...k", gramian, weights)


def assert_equal_shares(
    weights: Any, gramian: Any, *, ratios: Sequence[float] | None = None, rtol: float = 1e-10
) -> None:
    """Every λ_k (Gλ)_k is the same, or in the proportions ``ratios``."""
    parts = share_parts(weights, gramian)
    assert_all_equal(parts if ratios is None else parts / np.asarray(ratios), rtol=rtol)


def projections(weights: Any, gramian: Any) -> Values:
    """How far the combined gradient goes along every unit gradient."""
    gramian = np.asarray(gramian)
    norms = np.sqrt(np.diagonal(gramian, axis1=-2, axis2=-1))
    cosines = gramian / norms[..., :, None] / norms[..., None, :]
    return np.einsum("...kl,...l->...k", cosines, np.asarray(weights) * norms)


def assert_equal_projections(weights: Any, gramian: Any, *, rtol: float = 1e-9) -> None:
    """The combined gradient has the same positive projection on every unit gradient."""
    assert_all_equal(projections(weights, gramian), rtol=rtol)


def permuted(measured: Values, order: Any, *, gramian: bool) -> Values:
    """``measured`` with its tasks in another order."""
    measured = measured[..., order]
    return measured[..., order, :] if gramian else measured


def assert_permutation_equivariant(
    rule: Rule, measured: Values, *, gramian: bool = False, rtol: float = 1e-12
) -> None:
    """Tasks in another order get the same weights in that order."""
    weights = rule(measured)
    for order in permutations(measured.shape[-1]):
        again = rule(permuted(measured, order, gramian=gramian))
        np.testing.assert_allclose(again, weights[..., order], rtol=rtol, atol=1e-300)


def assert_scale_invariant(
    rule: Rule, measured: Values, factors: Sequence[float] = (1e-3, 7.0, 1e3), rtol: float = 1e-12
) -> None:
    """The unit of what is measured does not matter."""
    weights = rule(measured)
    for factor in factors:
        np.testing.assert_allclose(rule(factor * measured), weights, rtol=rtol, atol=1e-300)


def assert_same_on_numpy_and_torch(
    function: Measure, *arguments: Values, rtol: float = 1e-12
) -> None:
    """An array gives an array and a tensor a tensor, both float64, with the same values."""
    from_numpy = function(*arguments)
    from_torch = function(*(torch.tensor(argument) for argument in arguments))
    assert isinstance(from_numpy, np.ndarray | np.float64)
    assert isinstance(from_torch, torch.Tensor)
    assert from_numpy.dtype == np.float64
    assert from_torch.dtype == torch.float64
    assert tuple(from_torch.shape) == from_numpy.shape
    np.testing.assert_allclose(from_torch.numpy(), from_numpy, rtol=rtol, atol=1e-300)


def assert_batched_like_loop(
    rule: Rule, measured: Values, *, n_core: int = 1, rtol: float = 1e-12, atol: float = 1e-300
) -> None:
    """A batch gives what its members give one by one; the last ``n_core`` axes are no batch."""
    together = rule(measured)
    assert together.shape == measured.shape[: measured.ndim - n_core + 1]
    for index in np.ndindex(measured.shape[: measured.ndim - n_core]):
        np.testing.assert_allclose(together[index], rule(measured[index]), rtol=rtol, atol=atol)


def assert_zero_like_absent(
    rule: Rule, measured: Values, *, gramian: bool = False, rtol: float = 1e-12
) -> None:
    """Tasks of norm 0 get 1/K, and the others the rest in the proportions of the rule without them.

    Args:
        rule: The rule.
        measured: Norms (K,), or a Gramian (K, K), with at least one task that is not 0.
        gramian: Which of the two.
        rtol: Relative tolerance of the others' weights.
    """
    norms = np.diagonal(measured) if gramian else measured
    n_tasks, live = len(norms), norms != 0
    weights = rule(measured)
    assert_on_simplex(weights)
    np.testing.assert_allclose(weights[~live], 1 / n_tasks, rtol=1e-15)
    without = rule(permuted(measured, np.flatnonzero(live), gramian=gramian))
    np.testing.assert_allclose(weights[live], without * live.sum() / n_tasks, rtol=rtol)


class SynchronisationError(AssertionError):
    """Something waited for the device."""


class NoHostSync(TorchDispatchMode):
    """Refuse every operation that brings a value to the host or waits for a copy from it."""

    forbidden = (
        "_local_scalar_dense",
        "is_nonzero",
        "equal",
        "allclose",
        "nonzero",
        "masked_select",
        "unique",
        "bincount",
        "lift_fresh",
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).split(".")[1]
        waits = any(
            name == word or name.startswith((f"{word}_", f"_{word}")) for word in self.forbidden
        )
        if name.startswith("index"):  # a mask's length is known only to the device
            indices = args[1] if isinstance(args[1], list | tuple) else [args[2]]
            waits |= any(index is not None and index.dtype == torch.bool for index in indices)
        if waits:
            raise SynchronisationError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


class NoCheckedLinearAlgebra(TorchFunctionMode):
    """Refuse the solvers that read their error code back, which dispatch modes do not see."""

    forbidden = ("cholesky", "inv", "solve", "eigh", "eigvalsh", "pinv", "lstsq", "svd", "qr")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").removeprefix("linalg_")
        if name in self.forbidden or kwargs.get("check_errors", False):
            raise SynchronisationError(f"{name} checks its error code on the host")
        return func(*args, **kwargs)


def assert_no_host_sync(rule: Rule, measured: Values) -> None:
    """On a tensor, nothing waits for the device and no Python branch looks at a value.

    Args:
        rule: The rule or measure.
        measured: What it takes.
    """
    tensor = torch.tensor(measured)
    with NoHostSync(), NoCheckedLinearAlgebra():
        weights = rule(tensor)
    # A meta tensor has no values at all: what looks at one fails.
    shape = rule(tensor.to("meta"))
    assert shape.device.type == "meta"
    assert shape.shape == weights.shape
