"""The problems in which a helper is useless, a task is seldom there, or its labels are few."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import gaba
from gaba.bench import Problem, load
from gaba.bench.problems import multi_mnist, multi_mnist_auxiliary
from gaba.bench.problems.synthetic_rare import SCALES, TASKS, Regressions, SyntheticRare
from gaba.bench.trial import Trial, run_trial

CPU = torch.device("cpu")

# -- synthetic-rare ------------------------------------------------------------------------------


def test_one_task_is_in_one_batch_of_four_and_the_others_in_all() -> None:
    session = SyntheticRare().start(0, CPU)
    seen = [set(session.losses()) for _ in range(400)]
    assert all(tasks | {"seldom"} == set(TASKS) for tasks in seen)
    assert "seldom" in seen[0]
    places = [
        [k for k in range(4) if "seldom" in block[k]]
        for block in (seen[i : i + 4] for i in range(0, 400, 4))
    ]
    assert all(len(place) == 1 for place in places)
    assert {place[0] for place in places} == {0, 1, 2, 3}


def test_when_the_task_is_there_is_decided_by_the_seed() -> None:
    def turns(seed: int) -> list[bool]:
        session = SyntheticRare().start(seed, CPU)
        return ["seldom" in session.losses() for _ in range(80)]

    assert turns(1) == turns(1)
    assert turns(1) != turns(2)


def test_two_labels_of_a_batch_are_seen_and_one_is_in_each_half() -> None:
    """The gradient with respect to the features is 0 at an example without a label."""
    session = SyntheticRare().start(0, CPU)
    losses = session.losses()
    features = session.features
    assert features is not None
    touched = {}
    for task in ("sparse", "t0"):
        (at,) = torch.autograd.grad(losses[task], features, retain_graph=True)
        touched[task] = at.abs().sum(dim=1).nonzero()[:, 0].tolist()
    assert touched["sparse"] == [0, 32]
    assert touched["t0"] == list(range(64))


def test_the_loss_of_the_few_labels_has_the_same_mean_and_more_noise() -> None:
    """Where nothing is learned E L = s (e + σ²); a mean over n labels has a variance of 1/n."""
    session = SyntheticRare().start(0, CPU)
    with torch.no_grad():
        batches = [session.losses() for _ in range(3000)]
    excess = session.evaluate("test")
    variances = {}
    for k, task in enumerate(TASKS):
        found = np.array([float(losses[task]) for losses in batches if task in losses])
        expected = SCALES[k] * (excess[f"excess_{task}"] + 0.25)
        assert found.mean() == pytest.approx(expected, rel=0.06)
        variances[task] = found.var() / expected**2
    assert variances["sparse"] == pytest.approx(1, rel=0.2)  # 2/n: χ² of two degrees of freedom
    for task in ("t0", "t1", "seldom", "t2", "t3"):
        assert variances[task] == pytest.approx(1 / 32, rel=0.2)


def test_no_task_is_easier_and_the_least_excess_is_two_ninths() -> None:
    """The Gram matrix 2/3 + 1/3 has the eigenvalues 8/3 and five times 2/3: (2/3 + 2/3)/6 = 2/9."""
    a = Regressions().coefficients
    gram = a @ a.T
    assert gram == pytest.approx(np.full((6, 6), 1 / 3) + np.eye(6) * 2 / 3)
    assert Regressions().least_mean_excess == pytest.approx(2 / 9)
    kept = np.linalg.svd(a)[2][:4]
    reached = ((a - a @ kept.T @ kept) ** 2).sum(axis=1).mean()
    assert reached == pytest.approx(2 / 9)


@pytest.mark.parametrize("method", ["uniform", "gaba", "inverse", "inverse-half", "single:seldom"])
def test_methods_train_with_the_task_that_is_missing(method: str) -> None:
    result = run_trial(Trial("synthetic-rare", method, "adam", 0.03, 0.0, seed=0, steps=40))
    assert not result["diverged"]
    assert math.isfinite(result["quality"])


def test_the_history_tells_what_was_missing() -> None:
    session = SyntheticRare().start(0, CPU)
    balancer = gaba.Balancer(TASKS, session.shared)
    there = []
    for _ in range(12):
        losses = session.losses()
        there.append("seldom" in losses)
        balancer.backward(losses, features=session.features)
    column = balancer.history.tasks.index("seldom")
    assert [not math.isnan(x) for x in balancer.history.losses[:, column]] == there
    assert there.count(True) == 3


# -- multi-mnist-auxiliary -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def auxiliary() -> multi_mnist_auxiliary.MultiMnistAuxiliary:
    try:
        found: Problem = load("multi-mnist-auxiliary")
    except FileNotFoundError as error:
        pytest.skip(f"needs data: {error}")
    assert isinstance(found, multi_mnist_auxiliary.MultiMnistAuxiliary)
    return found


def test_the_main_task_alone_decides(
    auxiliary: multi_mnist_auxiliary.MultiMnistAuxiliary,
) -> None:
    figures = {"error_left": 0.18, "error_right": 0.9, "error_shuffled": 0.9}
    assert auxiliary.quality(figures) == pytest.approx(0.2)
    assert auxiliary.quality(figures | {"error_right": 0.0, "error_shuffled": 0.0}) == (
        auxiliary.quality(figures)
    )
    assert auxiliary.quality(figures | {"error_left": math.nan}) == math.inf


def test_the_shuffled_labels_are_as_frequent_and_tell_nothing(
    auxiliary: multi_mnist_auxiliary.MultiMnistAuxiliary,
) -> None:
    for split, labels in auxiliary.labels.items():
        pictures = auxiliary.data[split]
        assert torch.equal(labels["left"], pictures.left)
        assert torch.equal(labels["right"], pictures.right)
        counts = [torch.bincount(labels[task], minlength=10) for task in ("left", "shuffled")]
        assert torch.equal(*counts)
        joint = torch.zeros(10, 10, dtype=torch.float64)
        joint.index_put_(
            (labels["left"], labels["shuffled"]),
            torch.ones(len(pictures.left), dtype=torch.float64),
            accumulate=True,
        )
        expected = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True) / joint.sum()
        chi = float(((joint - expected) ** 2 / expected).sum())
        assert chi < 81 + 4 * math.sqrt(2 * 81)  # 81 degrees of freedom, four standard deviations


def test_the_trunk_starts_as_that_of_multi_mnist(
    auxiliary: multi_mnist_auxiliary.MultiMnistAuxiliary,
) -> None:
    other = multi_mnist.MultiMnist().start(3, CPU)
    assert isinstance(other.shared, torch.nn.Module)
    session = auxiliary.start(3, CPU)
    assert isinstance(session.shared, torch.nn.Module)
    for a, b in zip(session.shared.parameters(), other.shared.parameters(), strict=True):
        assert torch.equal(a, b)
