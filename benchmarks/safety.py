"""What balancing may break: solved, dead, rare and returning tasks, under several limits.

    python benchmarks/safety.py
    python benchmarks/safety.py --seeds 2 --cases hinge flip

Each case trains a small model by the plain sum of its losses and by the method ``gaba`` with
several limits and recoveries. Balancing must not end worse than the plain sum by more than 10 %.
Takes a quarter of an hour on one core and writes ``docs/benchmarks/safety.md``.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, final

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

import gaba

DOCS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
LIMITS = (32.0, 64.0, 100.0, 1000.0)
RECOVERIES = (8.0, 32.0)
WORSE = 1.1
"""A case is kept if it ends at most 10 % worse than the plain sum."""
FLOOR = 1e-6
"""Losses below this are solved, whichever is lower."""

Losses: TypeAlias = Mapping[str, Tensor | None]
Backward: TypeAlias = Callable[[Losses], None]


@final
@dataclass(frozen=True)
class Setting:
    """What the default does with the multipliers: their bounds, their length, and the heads'."""

    limit: float = 64.0
    recovery: float = 8.0
    scale: Literal["sum", "geometric", "max"] = "sum"
    heads: Literal["weighted", "plain"] = "weighted"


@final
class Combined:
    """How the losses of one run become a gradient, and which multipliers that took.

    Args:
        setting: of the method ``gaba``; ``None`` for the plain sum.
    """

    def __init__(self, setting: Setting | None) -> None:
        self.setting = setting
        self.most = self.least = 1.0

    def over(
        self, tasks: Sequence[str], shared: nn.Module | Iterable[nn.Parameter], accumulate: int = 1
    ) -> Backward:
        """A function in place of ``sum(losses).backward()``."""
        if self.setting is None:
            return _plain
        method = gaba.methods.get("gaba", tasks, **vars(self.setting))
        balancer = gaba.Balancer(tasks, shared, method, accumulate=accumulate)

        def backward(losses: Losses) -> None:
            used = balancer.backward(losses).multipliers
            used = used[~used.isnan()].tolist()
            self.most, self.least = max(self.most, *used), min(self.least, *used)

        return backward


def _plain(losses: Losses) -> None:
    there = [loss for loss in losses.values() if loss is not None]
    sum(there, start=torch.zeros(())).backward()


OPTIMIZERS = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam}


Run: TypeAlias = Callable[[Combined, str, int], float]
"""From the combination, the optimizer and the seed to a value."""


@final
@dataclass(frozen=True)
class Case:
    """One way in which balancing may go wrong.

    Attributes:
        title: what happens.
        judged: what the value of a run is; lower is better.
        run: trains, and gives the value.
        optimizers: with which it is tried.
        drawn: whether the seed changes anything.
        returns: whether the value is the first gradient of a task that comes back. It may be R
            times that of the plain sum.
    """

    title: str
    judged: str
    run: Run
    optimizers: tuple[str, ...] = ("SGD", "Adam")
    drawn: bool = True
    returns: bool = False

    def allowed(self, setting: Setting) -> float:
        """How large the value may be, as a multiple of that of the plain sum."""
        return setting.recovery if self.returns else WORSE


# ---- the cases ----------------------------------------------------------------------------------


@final
class Net(nn.Module):
    """A trunk of one hidden layer, and a linear head a task."""

    def __init__(self, outputs: Sequence[int]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(32, n) for n in outputs)

    def forward(self, x: Tensor) -> list[Tensor]:
        """What each head says of x (N, 8)."""
        z = self.trunk(x)
        return [head(z).squeeze(-1) for head in self.heads]


@final
class Teacher:
    """Smooth targets (N,) of inputs (N, 8), one for each number k."""

    def __init__(self, n: int) -> None:
        self.w = torch.randn(n, 8) / 8**0.5

    def __call__(self, k: int, x: Tensor) -> Tensor:
        """The targets of task k."""
        return (x @ self.w[k]).sin()


def _step(optimizer: torch.optim.Optimizer, backward: Backward, losses: Losses) -> None:
    optimizer.zero_grad()
    backward(losses)
    optimizer.step()


def _mse(found: Tensor, wanted: Tensor) -> Tensor:
    return functional.mse_loss(found, wanted)


def _optimizer(name: str, parameters: Iterable[nn.Parameter], sgd: float) -> torch.optim.Optimizer:
    return OPTIMIZERS[name](parameters, lr=sgd if name == "SGD" else 3e-3)


def hinge(combined: Combined, name: str, seed: int) -> float:
    """A hinge is solved, with a gradient of exactly zero, while a regression goes on."""
    torch.manual_seed(seed)
    curvature = torch.linspace(0.1, 1, 10)
    weight = nn.Parameter(torch.cat([1 + 0.3 * torch.randn(10), torch.ones(1)]))
    backward = combined.over(["hinge", "regression"], [weight])
    optimizer, worst = _optimizer(name, [weight], 0.05), 0.0
    for step in range(400):
        regression = 0.5 * (curvature * weight[:10] ** 2).sum()
        losses = {"hinge": 10 * torch.relu(3 - weight[10]), "regression": regression}
        _step(optimizer, backward, losses)
        worst = max(worst, float(regression.detach())) if step >= 200 else 0.0
    return worst


def cross_entropy(combined: Combined, name: str, seed: int) -> float:
    """Classes that can be told apart: the cross-entropy vanishes, the regression goes on."""
    torch.manual_seed(seed)
    teacher, net = Teacher(2), Net([2, 1])
    x = torch.randn(256, 8)
    x = x[teacher(1, x).abs() > 0.3]
    label, wanted = (teacher(1, x) > 0).long(), teacher(0, x)
    backward = combined.over(["class", "value"], net.trunk)
    optimizer = _optimizer(name, net.parameters(), 0.1)
    for _ in range(400):
        logits, found = net(x)
        losses = {"class": functional.cross_entropy(logits, label), "value": _mse(found, wanted)}
        _step(optimizer, backward, losses)
    return float(_mse(net(x)[1], wanted).detach())


def dead(combined: Combined, name: str, seed: int) -> float:
    """Two healthy tasks, and noise whose gradient is a hundred thousand times smaller."""
    torch.manual_seed(seed)
    teacher, net = Teacher(2), Net([1, 1, 1])
    backward = combined.over(["a", "b", "dead"], net.trunk)
    optimizer = _optimizer(name, net.parameters(), 0.1)
    for _ in range(300):
        x = torch.randn(64, 8)
        a, b, c = net(x)
        losses = {"a": _mse(a, teacher(0, x)), "b": _mse(b, teacher(1, x))}
        _step(optimizer, backward, losses | {"dead": 1e-5 * _mse(c, torch.randn(64))})
    return _rest(net, teacher)


def _rest(net: Net, teacher: Teacher, signs: Sequence[int] = (1, 1)) -> float:
    """The geometric mean of the losses of the first tasks on fresh inputs."""
    x = torch.randn(2000, 8)
    with torch.no_grad():
        found = net(x)
        losses = [_mse(found[k], sign * teacher(k, x)) for k, sign in enumerate(signs)]
    return float(torch.stack(losses).log().mean().exp())


def flip(combined: Combined, name: str, seed: int) -> float:
    """A task has converged when its labels change sign."""
    torch.manual_seed(seed)
    teacher, net = Teacher(2), Net([1, 1])
    backward = combined.over(["flips", "stays"], net.trunk)
    optimizer = _optimizer(name, net.parameters(), 0.1)
    for step in range(400):
        x = torch.randn(64, 8)
        a, b = net(x)
        sign = 1 if step < 250 else -1
        losses = {"flips": _mse(a, sign * teacher(0, x)), "stays": _mse(b, teacher(1, x))}
        _step(optimizer, backward, losses)
    return _rest(net, teacher, (-1, 1))


def comeback(quiet: float) -> Run:
    """A norm of 10 falls to ``quiet`` for 1,000 steps, and is 10 again."""

    def run(combined: Combined, name: str, seed: int) -> float:
        weight = nn.Parameter(torch.zeros(2))
        backward = combined.over(["returns", "stays"], [weight])
        for step in range(1101):
            weight.grad = None
            norm = quiet if 100 <= step < 1100 else 10.0
            backward({"returns": norm * weight[0], "stays": weight[1]})
        assert weight.grad is not None
        return abs(float(weight.grad[0]))

    return run


def alternating(combined: Combined, name: str, seed: int) -> float:
    """One task a batch, norms 500 to 1; how far apart their pulls are."""
    weight = nn.Parameter(torch.zeros(2))
    backward = combined.over(["loud", "quiet"], [weight])
    pulls = [1.0, 1.0]
    for step in range(200):
        weight.grad = None
        k = step % 2
        backward({"loud": 500 * weight[0]} if k == 0 else {"quiet": weight[1]})
        assert weight.grad is not None
        pulls[k] = float(weight.grad.norm())
    return max(pulls) / min(pulls)


def bonus(called: str) -> Run:
    """A policy and its entropy bonus as two tasks: the reward that sampled actions miss.

    The default amplifies no loss that has the name of a regularizer.
    """

    def run(combined: Combined, name: str, seed: int) -> float:
        torch.manual_seed(seed)
        policy = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))
        last = policy[2]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.zero_()
        backward = combined.over(["policy", called], policy)
        optimizer = _optimizer(name, policy.parameters(), 0.3)
        for _ in range(300):
            x = torch.randn(64, 4)
            chosen = torch.distributions.Categorical(logits=policy(x))
            action = chosen.sample()
            reward = ((action == 1) == (x[:, 0] > 0)).float() * 2 - 1
            gain = (reward * chosen.log_prob(action)).mean()
            losses = {"policy": -gain, called: -0.01 * chosen.entropy().mean()}
            _step(optimizer, backward, losses)
        x = torch.randn(5000, 4)
        with torch.no_grad():
            right = policy(x).softmax(1).gather(1, (x[:, :1] > 0).long())
        return 1 / float(right.mean())

    return run


def rare(masked: bool) -> Run:
    """Labels of one task in 5 % of the batches."""

    def run(combined: Combined, name: str, seed: int) -> float:
        torch.manual_seed(seed)
        teacher, net = Teacher(2), Net([1, 1])
        backward = combined.over(["always", "rarely"], net.trunk)
        optimizer = _optimizer(name, net.parameters(), 0.1)
        for step in range(400):
            x = torch.randn(64, 8)
            a, b = net(x)
            there = step % 20 == 7
            rarely = _mse(b, teacher(1, x)) if there else 0 * b.sum() if masked else None
            _step(optimizer, backward, {"always": _mse(a, teacher(0, x)), "rarely": rarely})
        return _rest(net, teacher)

    return run


def micro(combined: Combined, name: str, seed: int) -> float:
    """Labels of one task in one micro-batch of four."""
    torch.manual_seed(seed)
    teacher, net = Teacher(2), Net([1, 1])
    backward = combined.over(["always", "third"], net.trunk, accumulate=4)
    optimizer = _optimizer(name, net.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        for part in range(4):
            x = torch.randn(32, 8)
            a, b = net(x)
            third = _mse(b, teacher(1, x)) if part == 2 else None
            backward({"always": _mse(a, teacher(0, x)), "third": third})
        optimizer.step()
    return _rest(net, teacher)


def small_head(size: float) -> Run:
    """One head starts as much smaller as ``size`` says, so its task hardly reaches the trunk."""

    def run(combined: Combined, name: str, seed: int) -> float:
        torch.manual_seed(seed)
        teacher, net = Teacher(2), Net([1, 1])
        with torch.no_grad():
            for p in net.heads[1].parameters():
                p.mul_(size)
        backward = combined.over(["usual", "small"], net.trunk)
        optimizer = _optimizer(name, net.parameters(), 0.1)
        for _ in range(300):
            x = torch.randn(64, 8)
            a, b = net(x)
            losses = {"usual": _mse(a, teacher(0, x)), "small": _mse(b, teacher(1, x))}
            _step(optimizer, backward, losses)
        return _rest(net, teacher)

    return run


ONE = ("SGD",)
AFTER = "the first gradient after 1,000 steps"
CASES = {
    "hinge": Case("a solved hinge, gradient exactly 0", "worst MSE of the other task", hinge),
    "cross-entropy": Case("a solved cross-entropy", "final MSE of the other task", cross_entropy),
    "dead": Case("two healthy tasks, one nearly dead", "final MSE of the healthy ones", dead),
    "flip": Case("labels flip after convergence", "final MSE", flip),
    "back-3": Case(
        "norm 10, then 1e-3, then 10", AFTER, comeback(1e-3), ONE, drawn=False, returns=True
    ),
    "back-6": Case(
        "norm 10, then 1e-6, then 10", AFTER, comeback(1e-6), ONE, drawn=False, returns=True
    ),
    "alternating": Case("one task a batch, norms 500 to 1", "imbalance", alternating, ONE, False),
    "bonus": Case(
        "policy and entropy bonus, called exploration",
        "1 over the mean reward of sampled actions",
        bonus("exploration"),
    ),
    "entropy": Case(
        "policy and entropy bonus, called entropy",
        "1 over the mean reward of sampled actions",
        bonus("entropy"),
    ),
    "rare": Case("labels in 5 % of the batches", "final MSE", rare(masked=False)),
    "masked": Case("the same, a loss of 0 in the others", "final MSE", rare(masked=True)),
    "micro": Case("labels in one micro-batch of four", "final MSE", micro),
    "head-6": Case("a head that starts at 1e-6", "final MSE", small_head(1e-6)),
    "head-2": Case("a head that starts at 1e-2", "final MSE", small_head(1e-2)),
}


# ---- what was found -----------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Outcome:
    """One case under one setting.

    Attributes:
        ratios: by seed, the value over that of the plain sum.
        allowed: how large their geometric mean may be.
        most: the largest multiplier of all runs.
        least: the smallest.
        limit: which both must keep.
    """

    ratios: tuple[float, ...]
    allowed: float
    most: float
    least: float
    limit: float

    @property
    def ratio(self) -> float:
        """The geometric mean; infinite if a run did not stay finite."""
        if not all(map(math.isfinite, self.ratios)):
            return math.inf
        return math.exp(statistics.fmean(map(math.log, self.ratios)))

    @property
    def bounded(self) -> bool:
        """Whether every multiplier was within the limit."""
        return 1 / self.limit <= self.least * (1 + 1e-9) and self.most <= self.limit * (1 + 1e-9)

    @property
    def holds(self) -> bool:
        """Whether the case is safe."""
        return self.bounded and self.ratio <= self.allowed


def measure(
    case: Case, optimizer: str, settings: Sequence[Setting], seeds: Sequence[int]
) -> tuple[float, list[Outcome]]:
    """The median value of the plain sum, and what each setting makes of the case.

    A limit that no multiplier came near changes nothing, so a larger one is not tried again.
    """
    drawn = seeds if case.drawn else seeds[:1]
    plain = [case.run(Combined(None), optimizer, seed) for seed in drawn]
    found: dict[Setting, Outcome] = {}
    for setting in sorted(settings, key=lambda s: (s.recovery, s.limit)):
        known = [
            o for s, o in found.items() if s.recovery == setting.recovery and _free(o, s.limit)
        ]
        if known:
            same = known[0]
        else:
            runs = [Combined(setting) for _ in drawn]
            values = [case.run(c, optimizer, seed) for c, seed in zip(runs, drawn, strict=True)]
            same = Outcome(
                tuple(_over(v, p) for v, p in zip(values, plain, strict=True)),
                case.allowed(setting),
                max(c.most for c in runs),
                min(c.least for c in runs),
                setting.limit,
            )
        found[setting] = replace(same, limit=setting.limit)
    return statistics.median(plain), [found[s] for s in settings]


def _free(outcome: Outcome, limit: float) -> bool:
    return outcome.most < 0.99 * limit and outcome.least > 1.01 / limit


def _over(value: float, plain: float) -> float:
    if not math.isfinite(value):
        return math.inf
    return max(value, FLOOR) / max(plain, FLOOR)


# ---- the page -----------------------------------------------------------------------------------

Found: TypeAlias = dict[tuple[str, str], tuple[float, list[Outcome]]]


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.2g}" if value >= 100 or value < 0.1 else f"{value:.2f}"


def _ends(values: Sequence[float]) -> tuple[str, str]:
    return _number(min(values)), _number(max(values))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(r) + " |" for r in (head, ["---"] * len(head), *rows))


def page(found: Found, settings: Sequence[Setting], n_seeds: int) -> str:
    """Says what was found."""
    broken = [
        [f"{CASES[c].title} ({o})" for (c, o), (_, found_) in found.items() if not found_[i].holds]
        for i in range(len(settings))
    ]
    always = set(broken[0]).intersection(*broken)
    kept = [s for s, b in zip(settings, broken, strict=True) if not set(b) - always]
    limit = max((s.limit for s in kept), default=0)
    recoveries = ", ".join(f"{s.recovery:g}" for s in kept if s.limit == limit)
    verdict = (
        f"The largest safe limit is {limit:g} (with recovery {recoveries})."
        if kept
        else "No setting keeps all cases that some other setting keeps."
    )
    if always:
        verdict += f"\n\n**No setting keeps these cases**: {'; '.join(sorted(always))}."
    names = [f"{s.limit:g}, {s.recovery:g}" for s in settings]
    ratios = _table(
        ["case", "optimizer", "judged by", "plain sum", *names],
        [
            [CASES[c].title, o, CASES[c].judged, f"{plain:.2g}"]
            + [_number(x.ratio) if x.holds else f"**{_number(x.ratio)}**" for x in outcomes]
            for (c, o), (plain, outcomes) in found.items()
        ],
    )
    counted = _table(
        ["limit, recovery", "cases that fail", "which"],
        [[n, str(len(b)), "; ".join(b) or "none"] for n, b in zip(names, broken, strict=True)],
    )
    default = settings.index(Setting())
    most = _table(
        ["case", "optimizer", "largest multiplier", "smallest", "best seed", "worst seed"],
        [
            [CASES[c].title, o, f"{x.most:.3g}", f"{x.least:.3g}", *_ends(x.ratios)]
            for (c, o), (_, outcomes) in found.items()
            for x in [outcomes[default]]
        ],
    )
    return f"""# What balancing may break

{verdict}

Small models are trained by the plain sum of their losses and by the method `gaba`, whose `limit` L
and `recovery` R are varied.

![Ratio to the plain sum](safety.png)

## Against the plain sum

The columns *L, R* show the value over that of the plain sum, the geometric mean of {n_seeds} seeds.
Lower is better, and 1 is as good as the plain sum. Up to {WORSE:g} is safe; the gradient of a task
that returns may be R times that of the plain sum. Bold is unsafe. Losses below {FLOOR:g} count as
equal. A *final MSE* is the geometric mean over the tasks: balancing trades the loud task against
the quiet one, and their sum sees the loud one alone.

{ratios}

{counted}

## Multipliers of the default

All within 1/L and L, here {Setting().limit:g}.

{most}

Measured by `python benchmarks/safety.py --seeds {n_seeds}` with torch
{torch.__version__.split("+")[0]} on the CPU. Nothing here is a time.
"""


def picture(found: Found, settings: Sequence[Setting]) -> Figure:
    """A field for each case and setting: better, as good, or worse than the plain sum."""
    figure = Figure(figsize=(9.2, 0.28 * len(found) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    rows = [[min(max(math.log10(x.ratio), -1.0), 1.0) for x in o] for _, o in found.values()]
    drawn = axis.imshow(rows, cmap="PuOr_r", vmin=-1, vmax=1, aspect="auto")
    for i, (_, outcomes) in enumerate(found.values()):
        for j, x in enumerate(outcomes):
            if not x.holds:
                axis.text(j, i, "unsafe", ha="center", va="center", fontsize=7)
    axis.set_xticks(range(len(settings)), [f"{s.limit:g}, {s.recovery:g}" for s in settings])
    axis.set_yticks(range(len(found)), [f"{CASES[c].title}, {o}" for c, o in found], fontsize=8)
    axis.set_xlabel("limit, recovery")
    figure.colorbar(drawn, label="log10 of the value over the plain sum's")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, default=DOCS, help="folder")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    settings = [Setting(limit, recovery) for recovery in RECOVERIES for limit in LIMITS]
    found: Found = {}
    for name in asked.cases:
        for optimizer in CASES[name].optimizers:
            print(f"{name}, {optimizer}", flush=True)
            found[name, optimizer] = measure(CASES[name], optimizer, settings, range(asked.seeds))
    text = page(found, settings, asked.seeds)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "safety.md").write_text(text, encoding="utf-8")
    picture(found, settings).savefig(asked.out / "safety.png", dpi=110)
    print(text)


if __name__ == "__main__":
    main()
