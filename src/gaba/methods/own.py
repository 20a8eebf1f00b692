"""The catalogue: this library's own methods, and the controls that any comparison needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gaba import rules
from gaba.measurement import HalfBatch, Tracked, Watched
from gaba.methods.entry import FREE, PASSES, Entry, building, with_slots
from gaba.methods.method import Method
from gaba.record import History, read
from gaba.stabilisers import EMA, Belief, Chain, Floor, Identity, Warmup

PAPER = "the GABA paper, equation 4"
OURS = "this library"
PLAIN: dict[str, Any] = {"believe": Identity(), "scale": "rule"}
"""Norms as they are, multipliers as the rule gives them."""


def _fixed(tasks: Sequence[str], shared: object, *, argument: str, **settings: Any) -> Method:
    try:
        multipliers = [float(word) for word in argument.split(",")]
    except ValueError:
        multipliers = []
    if len(multipliers) != len(tasks):
        raise ValueError(
            f"method 'fixed:' needs one number for each of the tasks {list(tasks)}, as in fixed:"
            f"{','.join('1' for _ in tasks)}; found {argument!r}"
        )
    return with_slots(rules.Fixed(multipliers), PLAIN, settings)


def _single(tasks: Sequence[str], shared: object, *, argument: str, **settings: Any) -> Method:
    if argument not in tasks:
        raise ValueError(
            f"method 'single:' needs one of the tasks {list(tasks)}; found {argument!r}"
        )
    return with_slots(rules.Fixed([float(task == argument) for task in tasks]), PLAIN, settings)


def _from_run(tasks: Sequence[str], shared: object, *, argument: str, **settings: Any) -> Method:
    path = Path(argument)
    found = settled(read(path / "history.jsonl" if path.is_dir() else path))
    if set(found) != set(tasks):
        raise ValueError(
            f"method 'from-run:' needs a run of the tasks {list(tasks)}, found {list(found)} in "
            f"{argument}"
        )
    return with_slots(rules.Fixed([found[task] for task in tasks]), PLAIN, settings)


def settled(history: History) -> dict[str, float]:
    """The multipliers that a run came to: each task's mean over the second half.

    They are means over the finite steps in which no task was missing. A run with these multipliers
    fixed asks: does adapting matter, or only where it ends?

    Raises:
        ValueError: there is no such step.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(1))
        >>> balancer = gaba.Balancer(["a", "b"], [w], method="paper")
        >>> for _ in range(4):
        ...     _ = balancer.backward({"a": 3 * w.sum(), "b": w.sum()})
        >>> gaba.methods.settled(balancer.history)
        {'a': 0.5, 'b': 0.5}
    """
    late = history[len(history) // 2 :]
    multipliers = late.multipliers
    whole = late.finite & (multipliers == multipliers).all(-1)
    if not whole.any():
        raise ValueError(
            f"history must hold a finite step with all tasks in its second half, found none in "
            f"{len(history)} steps: take a longer run"
        )
    return dict(zip(history.tasks, multipliers[whole].mean(0).tolist(), strict=True))


OWN = (
    Entry(
        "gaba",
        "own",
        "m_k ∝ 1/ĝ_k with Σ m ĝ = Σ ĝ, ĝ_k = √(⟨∇L_k, u⟩/m_k) a belief; within 1/L and L",
        "the defaults of this library",
        "the update",
        "0.05 of a step",
        building(
            rules.InverseNorm,
            measure=Tracked(),
            believe=Belief(),
            recovery=8.0,
            rise=1.2,
            limit=64.0,
            excuse_rare=True,
        ),
    ),
    Entry(
        "paper",
        "own",
        "λ_k = (S − g_k)/((K − 1) S), S = Σg; EMA 0.99 of the weights, floor 0.05, warm-up 100",
        PAPER,
        "norms",
        PASSES,
        building(
            rules.Gaba,
            believe=Identity(),
            smooth=Chain((Warmup(100), EMA(0.99), Floor(0.05))),
            scale="simplex",
        ),
    ),
    Entry(
        "inverse",
        "own",
        "m_k ∝ 1/g_k, with the logarithms of the norms smoothed",
        OURS,
        "norms",
        PASSES,
        building(rules.InverseNorm),
    ),
    Entry(
        "inverse-optimizer",
        "own",
        "m_k ∝ 1/‖P ∇L_k‖, P the steps that the optimizer takes",
        OURS,
        "norms, and optimizer=",
        PASSES,
        building(rules.InverseNorm, metric="optimizer"),
    ),
    Entry(
        "inverse-half",
        "own",
        "m_k ∝ ⟨a_k, b_k⟩^(−½), a and b the gradients on two halves of the batch",
        "noise as in McCandlish et al. 2018",
        "losses by halves of the batch",
        "2 K − 1 backward passes",
        building(rules.InverseNorm, measure=HalfBatch()),
    ),
    Entry(
        "equal-share",
        "own",
        "m_k (Gm)_k equal for all k",
        "Maillard et al. 2010 (equal risk contribution); Nash-MTL, Navon et al. 2022",
        "Gramian",
        PASSES,
        building(rules.EqualShare),
    ),
    Entry(
        "equal-projection",
        "own",
        "(Gm)_k/g_k equal for all k",
        "IMTL-G, Liu et al. 2021",
        "Gramian",
        PASSES,
        building(rules.EqualProjection),
    ),
    Entry(
        "sqrt-inverse",
        "own",
        "m_k ∝ g_k^(−½)",
        OURS,
        "norms",
        PASSES,
        building(lambda power=0.5: rules.InverseNorm(power), ["power"]),
    ),
    Entry(
        "log-inverse",
        "own",
        "m_k ∝ 1/log(1 + g_k/min g)",
        "the GABA paper, as not sufficient",
        "norms",
        PASSES,
        building(rules.LogInverse),
    ),
    Entry(
        "rank-inverse",
        "own",
        "m_k ∝ 1/rank of g_k",
        "the GABA paper, as not sufficient",
        "norms",
        PASSES,
        building(rules.RankInverse),
    ),
)

CONTROLS = (
    Entry(
        "observe",
        "control",
        "m_k = 1, the plain sum bit for bit; norms, shares and cosines are measured",
        OURS,
        "nothing",
        "0.05 of a step",
        building(rules.Uniform, believe=Identity(), scale="rule", measure=Watched(), observes=True),
    ),
    Entry(
        "uniform",
        "control",
        "m_k = 1, the plain sum",
        "",
        "nothing",
        FREE,
        building(rules.Uniform, **PLAIN),
    ),
    Entry(
        "fixed",
        "control",
        "m_k = M_k",
        "",
        "nothing",
        FREE,
        _fixed,
        argument="M,M,... one multiplier for each task",
    ),
    Entry(
        "single",
        "control",
        "m_TASK = 1, all others 0",
        "",
        "nothing",
        FREE,
        _single,
        argument="TASK, the one to train",
    ),
    Entry(
        "from-run",
        "control",
        "m_k = the mean multiplier of task k over the second half of another run",
        "",
        "a run",
        FREE,
        _from_run,
        argument="RUN, its folder or JSONL record",
    ),
    Entry(
        "inverse-initial",
        "control",
        "m_k = 1/L_k(0), the inverse of the first losses",
        "",
        "losses above 0",
        FREE,
        building(rules.InverseInitial, **PLAIN),
    ),
)
