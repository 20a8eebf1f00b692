"""The figures of the demonstration, against the published digits and against first principles."""

from __future__ import annotations

import pytest
import torch

from gaba import demo

NORMS = [(5.0, 0.01), (1.0, 1.0), (1e-20, 1e15), (3.0, 0.2), (0.5, 700.0)]


def test_the_table_has_the_published_digits() -> None:
    printed = [
        (
            row.rule,
            "/".join(f"{w:.4f}" for w in row.weights),
            "/".join(f"{c:.6f}" for c in row.contributions),
            f"{row.imbalance:.2f}",
        )
        for row in demo.table((5.0, 0.01))
    ]
    assert printed == [
        ("uniform", "0.5000/0.5000", "2.500000/0.005000", "500.00"),
        ("square root", "0.0428/0.9572", "0.214035/0.009572", "22.36"),
        ("gaba", "0.0020/0.9980", "0.009980/0.009980", "1.00"),
    ]


@pytest.mark.parametrize("norms", NORMS)
def test_each_rule_of_the_table_repairs_what_it_promises(norms: tuple[float, float]) -> None:
    ratio = max(norms) / min(norms)
    by_rule = {row.rule: row for row in demo.table(norms)}
    assert by_rule["uniform"].imbalance == pytest.approx(ratio)
    assert by_rule["square root"].imbalance == pytest.approx(ratio**0.5)
    assert by_rule["gaba"].imbalance == pytest.approx(1, rel=1e-6)
    for row in by_rule.values():
        assert sum(row.weights) == pytest.approx(1)
        pulls = [w * g for w, g in zip(row.weights, norms, strict=True)]
        assert row.contributions == pytest.approx(pulls, rel=1e-12, abs=0)


def test_the_proof_has_the_published_digits() -> None:
    p = demo.proof()
    assert f"{p.norms[0]:.3f} {p.norms[1]:.4f} {p.ratio:.1f}" == "76.533 0.3665 208.8"
    assert p.norms[0] == pytest.approx(76.5335, abs=6e-5)
    assert f"{p.weights[0]:.6f} {p.weights[1]:.6f}" == "0.004766 0.995234"
    assert f"{p.contributions[0]:.6f} {p.contributions[1]:.6f}" == "0.364791 0.364791"


@pytest.mark.parametrize("seed", range(5))
def test_the_measured_contributions_are_equal_for_any_seed(seed: int) -> None:
    p = demo.proof(seed)
    assert p.contributions[0] == pytest.approx(p.contributions[1], rel=1e-5)
    total = sum(p.norms)
    assert p.weights == pytest.approx((p.norms[1] / total, p.norms[0] / total), rel=1e-5)


def test_the_proof_depends_on_the_seed_and_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    assert demo.proof(1) != demo.proof(2)
    assert demo.proof(3) == demo.proof(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_text_says_every_figure_of_the_table_and_the_proof() -> None:
    text = demo.text()
    for row in demo.table():
        assert f"{row.imbalance:.2f}×" in text
        assert all(f"{c:.6f}" in text for c in row.contributions)
    p = demo.proof()
    for figure in (*p.weights, *p.contributions):
        assert f"{figure:.6f}" in text
    assert all(f"{norm:.4f}" in text for norm in p.norms)
    assert f"{p.ratio:.1f} times" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_negative_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="norms"):
        demo.table((1.0, -1.0))
