"""The losses of a step: what is taken, left out or refused, and vectors over all tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gaba
from gaba.autograd.losses import check_choice, check_losses, checked_tasks

TASKS = ("box", "cls", "mask")


def loss(value: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(value, dtype=dtype, requires_grad=True) * 1


def test_values_are_one_vector_over_all_tasks() -> None:
    batch = check_losses({"mask": loss(3), "box": loss(1).reshape(1), "cls": None}, TASKS)
    assert (batch.tasks, batch.present, batch.names) == (TASKS, (0, 2), ("box", "mask"))
    assert batch.values.dtype == torch.float64
    assert not batch.values.requires_grad
    torch.testing.assert_close(
        batch.values, torch.tensor([1, torch.nan, 3]).double(), equal_nan=True
    )
    assert [one.shape for one in batch.losses] == [()] * 2
    assert batch.mask.tolist() == [True, False, True]
    some = torch.tensor([5.0, 7.0])
    assert batch.spread(some, 0.0).tolist() == [5, 0, 7]
    assert batch.spread(some).isnan().tolist() == [False, True, False]
    assert batch.take(batch.spread(some)).tolist() == [5, 7]
    square = batch.spread_square(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert square[[0, 0, 2, 2], [0, 2, 0, 2]].tolist() == [1, 2, 3, 4]
    assert int(square.isnan().sum()) == 5


def test_scaled_losses_keep_their_values() -> None:
    halves = torch.tensor([1.0, 3.0], requires_grad=True)
    batch = check_losses({"a": halves * 1}, ("a", "b"), loss_shape=(2,))
    scaled = batch.scaled(torch.amp.GradScaler("cpu", init_scale=8.0))
    assert [float(one.detach()) for one in (*batch.losses, *scaled.losses)] == [2, 16]
    assert scaled.given[0].tolist() == [8, 24]
    assert torch.equal(scaled.values, batch.values) or batch.values.isnan().any()
    assert float(scaled.values[0]) == 2
    with torch.no_grad():
        again = check_losses({"a": halves * 1}, ("a", "b"), loss_shape=(2,), need_graph=False)
    assert float(again.values[0]) == 2


def test_what_is_no_task_and_needs_no_gradient_is_left_out() -> None:
    """As the metrics in the loss dictionaries of DETR, torchrl and others."""
    extra: dict[str, Any] = {"class_error": torch.tensor(12.5), "lr": 0.1, "grad_norm": None}
    batch = check_losses({"cls": loss(), **extra}, TASKS)
    assert batch.names == ("cls",)
    with pytest.raises(ValueError, match=r"unknown task 'msk' \(did you mean 'mask'\?\)"):
        check_losses({"cls": loss(), "msk": loss()}, TASKS)


def test_a_constant_zero_is_a_missing_task_and_another_constant_an_error() -> None:
    """A detector's batch without positives leaves a loss at the 0 that it started with."""
    batch = check_losses({"box": torch.zeros(()), "cls": loss()}, TASKS)
    assert batch.names == ("cls",)
    with pytest.raises(ValueError, match=r"losses\['box'\] has no graph: it was detached"):
        check_losses({"box": loss().detach(), "cls": loss()}, TASKS)
    with pytest.raises(ValueError, match="at least one of the tasks box, cls, mask, found box"):
        check_losses({"box": torch.zeros(())}, TASKS)
    batch = check_losses({"box": torch.zeros(()), "cls": loss()}, TASKS, need_graph=False)
    assert batch.names == ("box", "cls")


def test_batches_without_positives_train_like_the_sum() -> None:
    torch.manual_seed(0)
    trunk, head = torch.nn.Linear(4, 8), torch.nn.Linear(8, 5)
    balancer = gaba.Balancer(["box", "cls"], trunk)
    for positives in (True, False, True):
        for constant in (True, False):
            out = head(trunk(torch.randn(16, 4)))
            found = torch.zeros(2)  # as ultralytics does it
            found[1] = out[:, 4].square().mean()
            if positives:
                found[0] = out[:, :4].abs().mean()
            box = torch.zeros(()) if constant and not positives else found[0]
            step = balancer.backward({"box": box, "cls": found[1]})
            assert bool(step.finite)
            assert bool(step.losses[0].isnan()) == (constant and not positives)


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ([loss()], TypeError, "must be a mapping from task name"),
        ({"box": 1.0}, TypeError, "the loss itself, not its value"),
        ({"box": torch.ones(3, requires_grad=True)}, ValueError, r"found shape \(3,\): reduce it"),
        ({"box": loss(1, torch.complex64)}, ValueError, "must be real, found torch.complex64"),
        ({}, ValueError, "at least one of the tasks"),
    ],
)
def test_what_is_no_loss_is_refused(given: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        check_losses(given, TASKS)


def test_tasks_and_choices() -> None:
    assert checked_tasks(["a", "b"]) == ("a", "b")
    for bad in (["a"], ["a", "a"]):
        with pytest.raises(ValueError, match="at least 2 different names"):
            checked_tasks(bad)
    with pytest.raises(TypeError, match="sequence of names"):
        checked_tasks("ab")
    check_choice("scale", "sum", ("sum", "max"))
    with pytest.raises(
        ValueError, match=r"must be one of sum, max, found 'sun' \(did you mean 'sum'"
    ):
        check_choice("scale", "sun", ("sum", "max"))
    with pytest.raises(ValueError, match=r"found 3$"):
        check_choice("scale", 3, ("sum", "max"))
