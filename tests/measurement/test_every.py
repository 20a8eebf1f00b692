"""Measuring in every n-th step: what the other steps cost, and what they leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gaba
from _engines import NAMES, Counting, Plain
from gaba.measurement import Every, ExactNorms, FeatureNorms, LastLayerNorms


def steps(balancer: gaba.Balancer, world: Plain, n: int) -> list[tuple[int, bool, dict[str, Any]]]:
    found = []
    for _ in range(n):
        Counting.passes.clear()
        step = balancer.backward(world.losses())
        found.append((Counting.passes["trunk"], step.measured, step.asdict()["weights"]))
    return found


@pytest.mark.parametrize("how", ["engine", "balancer"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_steps_in_between_are_one_backward_pass_with_the_weights_as_they_are(
    how: str, n: int
) -> None:
    world = Plain()
    settings: dict[str, Any] = (
        {"measurement": Every(n, ExactNorms())} if how == "engine" else {"every": n}
    )
    found = steps(gaba.Balancer(NAMES, world.trunk, **settings), world, 11)
    for i, (passes, measured, weights) in enumerate(found):
        assert measured == (i % n == 0)
        assert passes == (3 if measured else 1)
        if not measured:
            assert weights == found[i - 1][2]


def test_due_is_where_both_agree() -> None:
    both = Every(2, Every(3, ExactNorms()))
    assert [step for step in range(13) if both.due(step)] == [0, 6, 12]


def test_the_state_of_the_engine_passes_through() -> None:
    world = Plain()
    one = gaba.Balancer(NAMES, world.trunk, measurement=Every(2, FeatureNorms(calibrate_every=4)))
    other = gaba.Balancer(NAMES, world.trunk, measurement=FeatureNorms(calibrate_every=4), every=2)
    assert steps(one, world, 9) == steps(other, world, 9)
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other.state_dict()[name])
    assert bool(one.state_dict()["_state.measurement_known"].all())


def test_it_needs_what_its_engine_needs() -> None:
    class Again(gaba.measurement.Measurement):
        needs_calls = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    assert Every(2, Again()).needs_calls
    assert not Every(2, ExactNorms()).needs_calls


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, found 0"):
        Every(0, LastLayerNorms())
    with pytest.raises(TypeError, match="engine must be a measurement, found str"):
        Every(2, "exact")  # type: ignore[arg-type]
