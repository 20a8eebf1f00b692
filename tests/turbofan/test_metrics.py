from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from gaba.turbofan.data import DataNotFoundError, find_data_dir, load
from gaba.turbofan.metrics import health_metrics, nasa_score, rmse, rul_metrics


@pytest.mark.parametrize("seed", range(5))
def test_rmse_equals_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, true = rng.uniform(0, 150, (2, 100))
    expected = sklearn_metrics.root_mean_squared_error(true, predicted)
    assert rmse(predicted, true) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_nasa_score_equals_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, true = rng.uniform(0, 150, (2, 60))
    total = 0.0
    for p, t in zip(predicted, true, strict=True):
        d = p - t
        total += math.exp(-d / 13) - 1 if d < 0 else math.exp(d / 10) - 1
    assert nasa_score(predicted, true) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(
    ("error", "score"), [(0, 0.0), (10, math.e - 1), (-13, math.e - 1), (20, math.e**2 - 1)]
)
def test_nasa_score_by_hand(error: float, score: float) -> None:
    assert nasa_score([50.0 + error], [50.0]) == pytest.approx(score, rel=1e-12)


@pytest.mark.parametrize("error", [1e5, -1e5])
def test_a_hopeless_prediction_has_an_infinite_score(error: float) -> None:
    assert nasa_score([50.0 + error, 50.0], [50.0, 50.0]) == math.inf


@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_late_costs_more_than_early_and_the_score_is_a_sum(size: float) -> None:
    late, early = nasa_score([60 + size], [60]), nasa_score([60 - size], [60])
    assert late > early > 0
    both = nasa_score([60 + size, 60 - size], [60, 60])
    assert both == pytest.approx(late + early, rel=1e-12)


def test_a_perfect_predictor_capped_at_125_on_the_raw_labels_of_fd002() -> None:
    try:
        folder = find_data_dir()
    except DataNotFoundError as error:
        pytest.skip(f"needs the real data: {error}")
    rul = load("FD002", folder).rul
    found = rul_metrics(np.minimum(rul, 125), rul)
    assert round(found.rmse, 1) == 18.3
    assert round(found.score) == 2010
    assert rul_metrics(np.minimum(rul, 125), np.minimum(rul, 125)).rmse == 0


@pytest.mark.parametrize("seed", range(6))
def test_health_metrics_equal_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = ([0, 1, 2], [0, 1, 2], [0, 2], [1], [0, 1], [2, 1])[seed]
    predicted, true = rng.choice(classes, (2, 50))
    found = health_metrics(predicted, true)
    assert found.accuracy == sklearn_metrics.accuracy_score(true, predicted)
    expected = sklearn_metrics.f1_score(true, predicted, average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(float(expected), rel=1e-6)
    matrix = sklearn_metrics.confusion_matrix(true, predicted, labels=[0, 1, 2])
    assert found.confusion == matrix.tolist()


def test_health_metrics_by_hand() -> None:
    # true 0: two right, one called 1; true 1: one right; true 2: one called 0
    found = health_metrics([0, 0, 1, 1, 0], [0, 0, 0, 1, 2])
    assert found.confusion == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert found.accuracy == 3 / 5
    assert found.macro_f1 == pytest.approx((4 / 6 + 2 / 3 + 0) / 3, rel=1e-6)


def test_rows_of_the_confusion_matrix_are_the_true_classes() -> None:
    assert health_metrics([2], [0]).confusion == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(("predicted", "true"), [([], []), ([1, 2], [1]), ([[1]], [[1]])])
def test_vectors_of_different_or_no_length(predicted: list[int], true: list[int]) -> None:
    for metric in (rmse, nasa_score, rul_metrics, health_metrics):
        with pytest.raises(ValueError, match="same length"):
            metric(predicted, true)
