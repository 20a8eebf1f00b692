"""This library's own rules, and the controls that any comparison needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gaba
from gaba import measurement
from gaba import rules as weighting
from gaba.methods._table import Method

PAPER = "the GABA paper, equation 4"
OURS = "this library"
K_PASSES = "K − 1 backward passes (shared with the update)"
FREE = "nothing"


def _rule(rule: weighting.Weighting, **own: Any) -> Callable[..., gaba.Balancer]:
    def make(tasks: Sequence[str], shared: Any, **settings: Any) -> gaba.Balancer:
        return gaba.Balancer(tasks, shared, **{"weighting": rule, **own, **settings})

    return make


def _constant(rule: weighting.Weighting) -> Callable[..., gaba.Balancer]:
    """Weights that need no norms: nothing is measured, and nothing is paid for."""
    return _rule(rule, norm_stabiliser=None, scale="simplex")


def _paper(tasks: Sequence[str], shared: Any, **settings: Any) -> gaba.Balancer:
    published = gaba.Balancer.paper(tasks, shared)
    own = {
        "norm_stabiliser": published.norm_stabiliser,
        "weighting": published.weighting,
        "weight_stabiliser": published.weight_stabiliser,
        "scale": published.scale,
    }
    return gaba.Balancer(tasks, shared, **{**own, **settings})


def _in_metric(tasks: Sequence[str], shared: Any, **settings: Any) -> gaba.Balancer:
    if settings.get("optimizer") is None:
        raise ValueError(
            "optimizer must be given for the method 'inverse-optimizer', found None: pass the "
            "optimizer of the shared parameters, whose metric is to be used"
        )
    return gaba.Balancer(tasks, shared, **{"metric": "optimizer", **settings})


def _fixed(tasks: Sequence[str], shared: Any, *, argument: str, **settings: Any) -> gaba.Balancer:
    try:
        weights = [float(word) for word in argument.split(",")]
    except ValueError:
        weights = []
    if len(weights) != len(tasks):
        raise ValueError(
            f"method 'fixed:' needs one weight for each of {list(tasks)}, as in fixed:"
            f"{','.join('1' for _ in tasks)}; found {argument!r}"
        )
    return _constant(weighting.Fixed(weights))(tasks, shared, **settings)


def _single(tasks: Sequence[str], shared: Any, *, argument: str, **settings: Any) -> gaba.Balancer:
    if argument not in tasks:
        raise ValueError(
            f"method 'single:' needs one of the tasks {list(tasks)}; found {argument!r}"
        )
    rule = weighting.Fixed([float(task == argument) for task in tasks])
    return _constant(rule)(tasks, shared, **settings)


def _from_run(
    tasks: Sequence[str], shared: Any, *, argument: str, **settings: Any
) -> gaba.Balancer:
    path = Path(argument)
    found = gaba.History.read(path / "history.jsonl" if path.is_dir() else path)
    weights = settled_weights(found)
    if set(weights) != set(tasks):
        raise ValueError(
            f"method 'from-run:' needs a run of the tasks {list(tasks)}, found {list(weights)} in "
            f"{argument}"
        )
    return _constant(weighting.Fixed([weights[task] for task in tasks]))(tasks, shared, **settings)


def settled_weights(history: gaba.History) -> dict[str, float]:
    """The weights that a run came to: the mean of each task's weight over the second half.

    λ̄_k = (2/N) Σ_{n ≥ N/2} λ_k(n), over the finite steps in which no task was missing, brought to
    sum 1. A run with these as fixed weights asks: does adapting matter, or only the proportions?

    Args:
        history: of N steps.

    Raises:
        ValueError: there is no such step.

    Example:
        >>> import torch, gaba
        >>> balancer = gaba.Balancer(["a", "b"], [w := torch.nn.Parameter(torch.ones(1))])
        >>> for _ in range(4):
        ...     _ = balancer.backward({"a": 3 * w.sum(), "b": w.sum()})
        >>> {name: round(weight, 6) for name, weight in settled_weights(balancer.history).items()}
        {'a': 0.25, 'b': 0.75}
    """
    half = slice(len(history) // 2, None)
    weights = history.weights[half]
    whole = history.finite[half] & (history.losses[half] == history.losses[half]).all(-1)
    if not whole.any():
        raise ValueError(
            f"history must hold a finite step with all tasks in its second half, found none in "
            f"{len(history)} steps: take a longer run"
        )
    mean = weights[whole].mean(0)
    return dict(zip(history.tasks, (mean / mean.sum()).tolist(), strict=True))


OWN = (
    Method(
        "inverse",
        "own",
        "λ_k ∝ 1/g_k, with the logarithms of the norms smoothed",
        "the defaults of this library",
        "norms",
        K_PASSES,
        _rule(weighting.InverseNorm()),
    ),
    Method(
        "gaba",
        "own",
        "λ_k = (S − g_k)/((K − 1) S), S = Σg; EMA .99 of the weights, floor .05, warm-up 100",
        PAPER,
        "norms",
        K_PASSES,
        _paper,
    ),
    Method(
        "inverse-optimizer",
        "own",
        "λ_k ∝ 1/‖P ∇L_k‖, P the steps that the optimizer takes",
        OURS,
        "norms, and optimizer=",
        K_PASSES,
        _in_metric,
    ),
    Method(
        "inverse-half",
        "own",
        "λ_k ∝ ⟨a_k, b_k⟩^(−½), a and b the gradients on two halves of the batch",
        "noise as in McCandlish et al. 2018",
        "losses by halves of the batch",
        "2 K − 1 backward passes",
        _rule(weighting.InverseNorm(), measurement=measurement.HalfBatch(), norm_stabiliser=None),
    ),
    Method(
        "inverse-sketch",
        "own",
        "λ_k ∝ 1/ĝ_k, ĝ from one random direction in every 4th step",
        OURS,
        "norms",
        "a quarter of one forward pass and K passes of the heads",
        _rule(
            weighting.InverseNorm(),
            measurement=measurement.SketchNorms(every=4),
            norm_stabiliser=None,
        ),
    ),
    Method(
        "equal-share",
        "own",
        "λ_k (Gλ)_k equal for all k",
        "Maillard et al. 2010 (equal risk contribution); Nash-MTL, Navon et al. 2022",
        "Gramian",
        K_PASSES,
        _rule(weighting.EqualShare()),
    ),
    Method(
        "equal-projection",
        "own",
        "(Gλ)_k/g_k equal for all k",
        "IMTL-G, Liu et al. 2021",
        "Gramian",
        K_PASSES,
        _rule(weighting.EqualProjection()),
    ),
    Method(
        "sqrt-inverse",
        "own",
        "λ_k ∝ g_k^(−½)",
        OURS,
        "norms",
        K_PASSES,
        _rule(weighting.InverseNorm(power=0.5)),
    ),
    Method(
        "log-inverse",
        "own",
        "λ_k ∝ 1/log(1 + g_k/min g)",
        "the GABA paper, as not sufficient",
        "norms",
        K_PASSES,
        _rule(weighting.LogInverse()),
    ),
    Method(
        "rank-inverse",
        "own",
        "λ_k ∝ 1/rank of g_k",
        "the GABA paper, as not sufficient",
        "norms",
        K_PASSES,
        _rule(weighting.RankInverse()),
    ),
)

CONTROLS = (
    Method("uniform", "control", "λ_k = 1/K", "", "nothing", FREE, _constant(weighting.Uniform())),
    Method(
        "fixed",
        "control",
        "λ_k ∝ W_k",
        "",
        "nothing",
        FREE,
        _fixed,
        argument="W,W,... one weight for each task",
    ),
    Method(
        "single",
        "control",
        "λ_TASK = 1, all others 0",
        "",
        "nothing",
        FREE,
        _single,
        argument="TASK, the one to train",
    ),
    Method(
        "from-run",
        "control",
        "λ_k ∝ the mean weight of task k over the second half of another run",
        "",
        "a run",
        FREE,
        _from_run,
        argument="RUN, its folder or JSONL record",
    ),
)
