"""How fast the tracked shares settle, and how still they stand, on synthetic gradients.

    python benchmarks/controller.py

The gradients are given by their norms and cosines, so the true shares are known. Everything else is
the real thing: the method ``gaba`` is told the effective norms that the update reveals, and says
the multipliers of the next step. Each norm that it is told is off by 30 % (log-normal). Takes half
a minute and writes ``docs/benchmarks/controller.md``.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, final

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

import gaba
from gaba.measurement.tracked import effective
from gaba.pieces import Seen
from gaba.rules import Targets
from gaba.state import flatten, unflatten

DOCS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
LIMIT = 1000.0
"""Norms of 500 to 1 need multipliers beyond the limit of the default."""
NOISE = 0.3
WITHIN = 2.0
"""A start, or a jump, is over once the imbalance stays below this."""
HORIZON = 100
STEADY = slice(300, 600)
QUIET = 5000
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")

Seeds: TypeAlias = Sequence[int]


@final
@dataclass(frozen=True, eq=False)
class Situation:
    """The true gradients of K tasks, measurement by measurement.

    Attributes:
        title: what it is called in the table.
        norms: (T, K), g.
        cosine: of each pair of tasks.
        noise: the standard deviation of the logarithm of each norm that is measured.
        exact: whether the first norms are measured before the first step, as the Balancer does it.
    """

    title: str
    norms: Tensor
    cosine: float = 0.0
    noise: float = NOISE
    exact: bool = False

    @property
    def cosines(self) -> Tensor:
        """(K, K)."""
        n = self.norms.shape[1]
        one = torch.ones(n, n, dtype=self.norms.dtype)
        return self.cosine * one + (1 - self.cosine) * torch.eye(n, dtype=self.norms.dtype)


@final
@dataclass(frozen=True, eq=False)
class Trace:
    """What happened in one situation, (seeds, T, K), before each of the T measurements.

    Attributes:
        shares: s, true ones; negative for a task that opposes the update.
        contributions: c = m g, true ones.
        multipliers: m.
    """

    shares: Tensor
    contributions: Tensor
    multipliers: Tensor

    @property
    def share_imbalance(self) -> Tensor:
        """(seeds, T), √(max s / min s); infinite where a share is not positive."""
        low, high = self.shares.aminmax(dim=-1)
        return torch.where(low > 0, (high / low).sqrt(), torch.inf)

    @property
    def imbalance(self) -> Tensor:
        """(seeds, T), max c / min c."""
        low, high = self.contributions.aminmax(dim=-1)
        return high / low


@final
@dataclass(frozen=True)
class Row:
    """One row of the table: a value for each seed, none of which may be above the bound."""

    title: str
    judged: str
    bound: float
    values: tuple[float, ...]

    @property
    def holds(self) -> bool:
        """Whether the bound is kept by all seeds."""
        return max(self.values) <= self.bound


def tracking(**settings: float | None) -> gaba.Method:
    """The default method, with a limit that lets 500 to 1 be repaired."""
    return gaba.methods.get("gaba", **{"limit": LIMIT, **settings})


def follow(method: gaba.Method, situations: Sequence[Situation], seeds: Seeds) -> list[Trace]:
    """The method in each situation and for each seed; all have the same T and K.

    The flow is that of the Balancer: multipliers from the state, the update, the effective norms
    along it, and the state that follows. All runs advance together, under ``torch.vmap``.
    """
    init = method.init(situations[0].norms.shape[1])

    def update(told: Tensor, flat: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        sound, new = method.update(Seen(torch.zeros_like(told), told), unflatten(init, flat))
        return sound, flatten(new)

    runs = [(s, seed) for s in situations for seed in seeds]
    true = torch.stack([s.norms for s, _ in runs], 1)
    told = torch.stack([_measured(s, seed) for s, seed in runs], 1)
    cosines = torch.stack([s.cosines for s, _ in runs])
    exact = torch.tensor([s.exact for s, _ in runs])
    state = {k: v.expand(len(runs), *v.shape) for k, v in flatten(init).items()}
    advance = torch.vmap(update)
    first = torch.where(exact[:, None], told[0], torch.nan)
    _, state = advance(first, state)
    shares, multipliers = torch.empty_like(true), torch.empty_like(true)
    for t in range(len(true)):
        m = multipliers[t] = unflatten(init, state).multipliers
        pulls = m * _products(true[t], cosines, m)
        shares[t] = pulls / pulls.sum(-1, keepdim=True)
        sound, state = advance(effective(_products(told[t + 1], cosines, m), m), state)
        if not bool(sound.all()):
            raise ValueError("the method must stay finite, found a step that is not: see Method")
    parts = (shares, multipliers * true, multipliers)
    by_run = [part.transpose(0, 1).split(len(seeds)) for part in parts]
    return [Trace(*found) for found in zip(*by_run, strict=True)]


def _measured(situation: Situation, seed: int) -> Tensor:
    """(T + 1, K): norms with noise of mean 1; the first row is for the exact ones of the start."""
    norms = torch.cat([situation.norms[:1], situation.norms])
    drawn = np.random.default_rng(seed).standard_normal(norms.shape)
    noise = situation.noise
    return norms * torch.from_numpy(np.exp(noise * drawn - noise**2 / 2))


def _products(norms: Tensor, cosines: Tensor, multipliers: Tensor) -> Tensor:
    """The slopes q = G m with G_kl = g_k g_l cos_kl: (B, K)."""
    return norms * (cosines @ (norms * multipliers)[..., None])[..., 0]


def constant(norms: Sequence[float], steps: int) -> Tensor:
    """(T, K), the same norms in all ``steps``."""
    return torch.tensor(norms, dtype=torch.float64).expand(steps, -1)


def settled(imbalance: Tensor) -> tuple[float, ...]:
    """After how many measurements each seed stays within a factor of 2; infinite for never."""
    outside = imbalance > WITHIN
    steps = torch.arange(1, outside.shape[1] + 1)
    last = torch.where(outside, steps, 0).amax(1).tolist()
    return tuple(math.inf if n == outside.shape[1] else float(n) for n in last)


# ---- the situations -----------------------------------------------------------------------------


def starts(seeds: Seeds) -> list[Row]:
    """500 to 1, where the first thing that is ever told is an effective norm at m = 1."""
    norms = constant((500, 1), HORIZON)
    cases = [Situation(f"500 to 1, cosine {c:g}", norms, c) for c in (0, 0.3, 0.7, -0.5, -0.9)]
    rows: list[Row] = []
    for case, trace in zip(cases, follow(tracking(), cases, seeds), strict=True):
        conflict = case.cosine < 0
        found = trace.imbalance if conflict else trace.share_imbalance
        judged = f"measurements until the {'contributions' if conflict else 'shares'} are balanced"
        rows.append(Row(case.title, judged, 25, settled(found)))
    return rows


def loud(seeds: Seeds) -> list[Row]:
    """One task is far louder than all the others."""
    rows: list[Row] = []
    for n in (3, 8, 40):
        cases = [
            Situation(
                f"one loud task of {n}, {ratio} to 1, cosine {c:g}",
                constant([ratio] + [1] * (n - 1), HORIZON),
                c,
            )
            for ratio in (100, 500)
            for c in (0, 0.3)
        ]
        for case, trace in zip(cases, follow(tracking(), cases, seeds), strict=True):
            values = settled(trace.share_imbalance)
            rows.append(Row(case.title, "measurements until the shares are balanced", 25, values))
    return rows


def steady(seeds: Seeds) -> list[Row]:
    """Equal norms: only noise moves the shares."""
    rows: list[Row] = []
    for n, bound in ((2, 1.15), (8, 1.25), (40, 1.35)):
        norms = constant([1] * n, STEADY.stop)
        cases = [Situation(f"{n} equal tasks, cosine {c:g}", norms, c) for c in (0, 0.3)]
        for case, trace in zip(cases, follow(tracking(), cases, seeds), strict=True):
            values = tuple(trace.share_imbalance[:, STEADY].mean(1).tolist())
            rows.append(Row(case.title, "share imbalance, mean of the tail", bound, values))
    return rows


def jumps(seeds: Seeds) -> list[Row]:
    """The norm of one task of three changes by 100, up and (without recovery) down."""
    before = 200
    cases: list[Situation] = []
    for name, factor in (("up", 100.0), ("down", 0.01)):
        norms = torch.cat([constant((1, 1, 1), before), constant((1, factor, 1), 2 * HORIZON)])
        title = f"a norm jumps {name} by 100"
        cases += [Situation(f"{title}, cosine {c:g}", norms, c) for c in (0, 0.2)]
    traces = follow(tracking(recovery=None), cases, seeds)
    judged = "measurements until the shares are balanced"
    return [
        Row(case.title, judged, 60, settled(trace.share_imbalance[:, before:]))
        for case, trace in zip(cases, traces, strict=True)
    ]


def conflicts(seeds: Seeds) -> list[Row]:
    """Two gradients that nearly cancel: what one is told depends on the other's multiplier."""
    norms = constant((3, 1), STEADY.stop)
    cases = [
        Situation(f"3 to 1, cosine {c:g}, {told}", norms, c, noise, exact=True)
        for noise, told in ((0.0, "without noise"), (NOISE, "with noise"))
        for c in (-0.5, -0.8, -0.9, -0.95, -0.98)
    ]
    rows: list[Row] = []
    for case, trace in zip(cases, follow(tracking(), cases, seeds), strict=True):
        values = tuple(trace.imbalance[:, STEADY].mean(1).tolist())
        bound = 1.3 if case.noise else 1.02
        rows.append(Row(case.title, "imbalance, mean of the tail", bound, values))
    return rows


def targets(seeds: Seeds) -> list[Row]:
    """Shares of 3 to 1 instead of equal ones."""
    method = replace(tracking(), rule=Targets((3**0.5, 1)))
    norms = constant((3, 1), STEADY.stop)
    cases = [Situation(f"shares of 3 to 1, cosine {c:g}", norms, c) for c in (0, 0.2)]
    rows: list[Row] = []
    for case, trace in zip(cases, follow(method, cases, seeds), strict=True):
        off = abs(float(trace.shares[:, STEADY, 0].mean()) - 0.75)
        judged = "how far the share is from 0.75, mean of the tail and the seeds"
        rows.append(Row(case.title, judged, 0.02, (off,)))
    return rows


def absent(seeds: Seeds) -> list[Row]:
    """A task stays away for 5,000 measurements, in which the others change by 100."""
    method, before, found = tracking(), 200, []
    for seed in seeds[:1]:
        noise = np.random.default_rng(seed).lognormal(0, NOISE, (before + QUIET, 3))
        told = torch.from_numpy(noise) * torch.tensor([5.0, 1.0, 0.01], dtype=torch.float64)
        told[before:, 0] = torch.nan
        told[before:, 2] *= 100
        state, left = method.init(3), {}
        for t, norms in enumerate(told):
            if t == before:
                left = flatten(state.believe)
            _, state = method.update(Seen(norms, norms), state)
        now = flatten(state.believe)
        found.append(float(sum(bool(now[name][0] != was[0]) for name, was in left.items())))
    judged = "parts of its belief that differ in any bit"
    return [Row(f"a task stays away for {QUIET:,} measurements", judged, 0, tuple(found))]


SECTIONS: dict[str, Callable[[Seeds], list[Row]]] = {
    "Start": starts,
    "One loud task": loud,
    "Steady state": steady,
    "Jump": jumps,
    "Conflict": conflicts,
    "Targets": targets,
    "Absence": absent,
}


# ---- the page -----------------------------------------------------------------------------------


def _number(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.4g}"


def _table(rows: Sequence[Row]) -> str:
    head = "| situation | judged by | bound | median seed | worst seed | |\n" + "| --- " * 6 + "|"
    lines = [
        f"| {r.title} | {r.judged} | {r.bound:g} | {_number(statistics.median(r.values))} "
        f"| {_number(max(r.values))} | {'holds' if r.holds else '**fails**'} |"
        for r in rows
    ]
    return "\n".join([head, *lines])


def page(seeds: Seeds) -> str:
    """Measures, and says what was found."""
    rows = {name: section(seeds) for name, section in SECTIONS.items()}
    broken = sum(not row.holds for found in rows.values() for row in found)
    verdict = "All bounds hold." if not broken else f"**{broken} of the bounds fail.**"
    parts = "\n\n".join(f"## {name}\n\n{_table(found)}" for name, found in rows.items())
    return f"""# How the tracked shares settle

{verdict} Gradients are given by their norms and cosines; each norm is measured with
{100 * NOISE:.0f} % noise. Everything else is the method `gaba` itself, with `limit={LIMIT:g}`. It
is told the effective norms along its own update, and the multipliers of the next step follow.
Shares, contributions and imbalance are the true ones, without noise.

![Imbalance by measurement](controller.png)

*Balanced* means within a factor of {WITHIN:g}, for good. The tail is measurement {STEADY.start} to
{STEADY.stop}. Where the cosine is negative, a share can be below zero although the contributions
are equal, so contributions are judged. In *Start* the exact first norm that the Balancer takes is
left out. The first thing ever told is an effective norm of the plain sum.

{parts}

Measured by `python benchmarks/controller.py --seeds {len(seeds)}` with torch
{torch.__version__.split("+")[0]}. Nothing here depends on the machine.
"""


def picture() -> Figure:
    """The imbalance over the measurements, one seed each."""
    figure = Figure(figsize=(10.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes: list[Axes] = list(figure.subplots(1, 3, squeeze=False)[0])
    begun = [Situation(f"cosine {c:g}", constant((500, 1), 40), c) for c in (0, 0.3, 0.7)]
    jump = torch.cat([constant((1, 1, 1), 40), constant((1, 100, 1), 60)])
    down = torch.cat([constant((1, 1, 1), 40), constant((1, 0.01, 1), 60)])
    jumped = [Situation("up by 100", jump), Situation("down by 100", down)]
    against = constant((3, 1), 200)
    fought = [Situation(f"cosine {c:g}", against, c, exact=True) for c in (-0.5, -0.9, -0.98)]
    traces = (
        ("500 to 1, without an exact start", begun, tracking()),
        ("a norm of three jumps", jumped, tracking(recovery=None)),
        ("3 to 1 in conflict", fought, tracking()),
    )
    for axis, (title, cases, method) in zip(axes, traces, strict=True):
        found = follow(method, cases, [0])
        for case, trace, colour in zip(cases, found, COLOURS, strict=False):
            curve = trace.imbalance if case.cosine < 0 else trace.share_imbalance
            axis.plot(curve[0], color=colour, label=case.title, linewidth=1.2)
        axis.set_title(title, fontsize=9)
        axis.set_yscale("log")
        axis.set_xlabel("measurement")
        axis.legend(fontsize=8, frameon=False)
        axis.grid(visible=True, axis="y", color="#DDDDDD", linewidth=0.6)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].set_ylabel("share imbalance")
    axes[2].set_ylabel("imbalance")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    text = page(range(asked.seeds))
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "controller.md").write_text(text, encoding="utf-8")
    picture().savefig(asked.out / "controller.png", dpi=110)
    print(text)


if __name__ == "__main__":
    main()
