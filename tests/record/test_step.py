"""A step holds multipliers; everything else of them follows."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from _steps import make_step

GRAMIAN = np.array([[4.0, 1.0, 0.5], [1.0, 1.0, -0.9], [0.5, -0.9, 9.0]])


def test_what_follows_from_the_multipliers() -> None:
    step = make_step([0.5, 2.0, 1.0], [2.0, 1.0, 3.0], gramian=GRAMIAN)
    np.testing.assert_allclose(step.weights, [1 / 7, 4 / 7, 2 / 7], rtol=1e-15)
    np.testing.assert_array_equal(step.contributions, [1.0, 2.0, 3.0])
    assert step.imbalance == 3
    m = np.array([0.5, 2.0, 1.0])
    np.testing.assert_allclose(step.shares, m * (GRAMIAN @ m) / (m @ GRAMIAN @ m), rtol=1e-14)
    assert step.cosines is not None
    np.testing.assert_allclose(step.cosines[0], [1, 0.5, 0.5 / 6], rtol=1e-14)


def test_a_missing_task_changes_nothing_for_the_others() -> None:
    whole = make_step([0.5, 2.0], [2.0, 1.0], gramian=GRAMIAN[:2, :2])
    gramian = np.array(GRAMIAN)
    gramian[2], gramian[:, 2] = np.nan, np.nan
    step = make_step([0.5, 2.0, np.nan], [2.0, 1.0, np.nan], gramian=gramian)
    np.testing.assert_array_equal(step.weights, [*whole.weights, 0])
    np.testing.assert_array_equal(step.shares, [*whole.shares, 0])
    np.testing.assert_array_equal(step.contributions, [1, 2, np.nan])
    assert step.imbalance == whole.imbalance == 2


def test_what_was_not_measured_is_not_known() -> None:
    step = make_step([1.0, 1.0], [np.nan, np.nan], losses=[1.0, 2.0], measured=False)
    assert step.shares.isnan().all()
    assert step.imbalance.isnan()
    assert step.cosines is None
    np.testing.assert_array_equal(step.weights, [0.5, 0.5])


@pytest.mark.parametrize("multipliers", [[0.0, 0.0], [np.nan, np.nan]])
def test_without_any_multiplier_the_weights_are_zero(multipliers: list[float]) -> None:
    np.testing.assert_array_equal(make_step(multipliers, [1.0, 1.0]).weights, [0, 0])


def test_asdict_is_plain_json_with_names() -> None:
    step = make_step(
        [0.5, np.nan],
        [2.0, np.nan],
        losses=[math.inf, np.nan],
        finite=False,
        saturated=[True, False],
    )
    found = json.loads(json.dumps(step.asdict(), allow_nan=False))
    assert found == {
        "step": 0,
        "measured": True,
        "engine": "",
        "combined": "caller",
        "finite": False,
        "losses": {"rul": None, "health": None},
        "norms": {"rul": 2.0, "health": None},
        "multipliers": {"rul": 0.5, "health": None},
        "weights": {"rul": 1.0, "health": 0.0},
        "contributions": {"rul": 1.0, "health": None},
        "saturated": {"rul": True, "health": False},
        "imbalance": 1.0,
    }


def test_asdict_has_shares_and_cosines_where_they_were_measured() -> None:
    found = make_step([1.0, 1.0], [2.0, 1.0], gramian=GRAMIAN[:2, :2]).asdict()
    assert found["cosines"] == [[1.0, 0.5], [0.5, 1.0]]
    assert found["shares"] == {"rul": pytest.approx(5 / 7), "health": pytest.approx(2 / 7)}


def test_shares_along_the_update_are_given_and_the_norms_are_effective() -> None:
    """c_k = m_k ĝ_k = √(m_k q_k), so the imbalance is √(max s / min s)."""
    multipliers, products = np.array([0.5, 2.0, 4.0]), np.array([8.0, 1.0, 0.75])
    shares = multipliers * products / (multipliers @ products)
    step = make_step(
        multipliers,
        np.sqrt(products / multipliers),
        shares=torch.tensor(shares),
        engine="products",
    )
    np.testing.assert_allclose(step.shares, [4 / 9, 2 / 9, 3 / 9], rtol=1e-15)
    np.testing.assert_allclose(step.contributions, [2, np.sqrt(2), np.sqrt(3)], rtol=1e-15)
    assert float(step.imbalance) == pytest.approx(np.sqrt(2), rel=1e-15)
    found = json.loads(json.dumps(step.asdict(), allow_nan=False))
    assert found["engine"] == "products"
    assert list(found["shares"].values()) == pytest.approx([4 / 9, 2 / 9, 3 / 9], rel=1e-15)
    assert "cosines" not in found


def test_shares_that_are_not_known_are_not_told() -> None:
    shares = torch.tensor([np.nan, np.nan, 0.0])  # 0 for the missing task
    step = make_step([1.0, 2.0, np.nan], [1.0, 1.0, np.nan], shares=shares)
    assert "shares" not in step.asdict()


def test_tensors_of_any_dtype_are_read() -> None:
    step = make_step([1.0, 1.0], [2.0, 1.0])
    odd = type(step)(**{**step.__dict__, "losses": step.losses.to(torch.bfloat16)})
    assert odd.asdict()["losses"] == {"rul": 2.0, "health": 1.0}
