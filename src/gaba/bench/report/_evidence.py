"""Everything that a report speaks of, worked out once: views, comparisons, what is amiss."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import final

from gaba.bench import statistics as stats
from gaba.bench.report._compare import Family, family
from gaba.bench.report._regret import Regret, regrets
from gaba.bench.report._runs import SWEEP, TUNED, Block, group_of, rankable
from gaba.bench.report._views import View, views_of
from gaba.bench.store import EDITION

FLOOR = "fixed:0.0476,0.9524"
"""Where the published algorithm comes to rest once its floor binds: 0.05/1.05 and 1/1.05."""

PRINCIPAL = (
    *("uniform", TUNED, SWEEP, "gaba", "paper", "inverse", "sqrt-inverse", "equal-share"),
    *("db-mtl", "gradnorm", "uncertainty", "famo", "nash-mtl"),
)
"""The methods of the second diagram, named before any result: fewer methods, sharper ranks."""


@final
@dataclass(frozen=True)
class Evidence:
    """The blocks of a store of one :attr:`gaba.bench.Store.edition`, and what follows from them."""

    blocks: tuple[Block, ...]
    edition: int = EDITION

    @cached_property
    def views(self) -> list[View]:
        return views_of(self.blocks)

    @cached_property
    def optimizers(self) -> list[str]:
        return list(dict.fromkeys(block.optimizer for block in self.blocks))

    @cached_property
    def problems(self) -> list[str]:
        return list(dict.fromkeys(block.problem for block in self.blocks))

    @cached_property
    def methods(self) -> list[str]:
        """All with final runs that train all tasks; frozen controls last."""
        found = dict.fromkeys(m for block in self.blocks for m in block.methods)
        return sorted(found, key=lambda m: (m.startswith("frozen:"), m))

    @cached_property
    def seeds(self) -> tuple[int, int]:
        """The fewest and the most seeds that a method has on a block."""
        counts = [len(block.final[m]) for block in self.blocks for m in block.methods]
        return (min(counts), max(counts)) if counts else (0, 0)

    @cached_property
    def asked(self) -> Family | None:
        """The questions about the default and the published method."""
        bases = {"gaba": ("uniform", TUNED), "paper": ("uniform", TUNED, FLOOR)}
        wanted = [(method, base) for method, against in bases.items() for base in against]
        question = (
            "The default (gaba) and the published algorithm (paper) against equal weights and "
            "against tuned fixed weights. The published one also against the fixed weights at "
            "which its floor leaves it."
        )
        return family("The default and the published algorithm", question, self.blocks, wanted)

    @cached_property
    def frozen(self) -> Family | None:
        """Each adaptive method against its own mean multipliers, held fixed."""
        pairs = [(m.partition(":")[2], m) for m in self.methods if m.startswith("frozen:")]
        question = (
            "Does adapting matter, or only where it ends? Each adaptive method against its own "
            "mean multipliers, held from the first step."
        )
        return family("Adapting or holding still", question, self.blocks, pairs)

    def against(self, baseline: str) -> Family | None:
        """Every method against one of them."""
        names = [m for m in rankable(self.methods) if m not in (baseline, SWEEP)]
        wanted = [(name, baseline) for name in names]
        title = f"Every method against {baseline}"
        return family(title, f"All differences are to {baseline}.", self.blocks, wanted)

    @cached_property
    def against_uniform(self) -> Family | None:
        return self.against("uniform")

    @cached_property
    def against_tuned(self) -> Family | None:
        return self.against(TUNED)

    @cached_property
    def regrets(self) -> list[Regret]:
        return regrets(self.blocks)

    @cached_property
    def several_tasks(self) -> list[View]:
        """The views with the problems of three or more tasks alone."""
        return views_of([block for block in self.blocks if len(block.judge.tasks) > 2])

    @cached_property
    def own(self) -> list[str]:
        return [m for m in self.methods if group_of(m) == "own"]

    @cached_property
    def diverged(self) -> Counter[tuple[str, str]]:
        """How many final runs of a method diverged on a block, by method and block."""
        return Counter(
            (method, block.name)
            for block in self.blocks
            for method, runs in block.final.items()
            for run in runs.values()
            if run.diverged
        )

    @cached_property
    def only_warms_up(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(method, block) → steps of warm-up and of the run, where the run has no others."""
        return {
            (method, block.name): (int(run.figure("warm_up")), run.row.steps)
            for block in self.blocks
            for method, runs in block.final.items()
            for run in runs.values()
            if run.only_warms_up
        }

    @cached_property
    def failed(self) -> dict[tuple[str, str], Counter[str]]:
        """(method, first line of the error) → block → how many runs, of every stage."""
        found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for block in self.blocks:
            for run in block.runs:
                if run.error is not None:
                    line = (run.error.strip().splitlines() or ["no message"])[-1]
                    found[run.method, line][block.name] += 1
        return dict(found)

    @cached_property
    def missing(self) -> dict[str, list[str]]:
        """Method → the blocks without any final run of it."""
        found: dict[str, list[str]] = defaultdict(list)
        for method in self.methods:
            for block in self.blocks:
                if method not in block.final:
                    found[method].append(block.name)
        return dict(found)

    @cached_property
    def short(self) -> dict[str, int]:
        """Block → how many methods have fewer seeds there than the block's most complete one."""
        found: dict[str, int] = {}
        for block in self.blocks:
            counts = [len(block.final[m]) for m in block.methods]
            if fewer := sum(count < max(counts) for count in counts):
                found[block.name] = fewer
        return found

    @cached_property
    def processors(self) -> list[str]:
        names = (r.row.versions.get("processor", "?") for b in self.blocks for r in b.runs)
        return list(dict.fromkeys(names))

    @cached_property
    def versions(self) -> list[str]:
        """Each set of versions that runs were made with."""
        told = (r.row.versions for block in self.blocks for r in block.runs)
        lines = (
            ", ".join(f"{k} {v}" for k, v in sorted(found.items()) if k != "processor")
            for found in told
        )
        return list(dict.fromkeys(lines))

    def least_p(self) -> float:
        """The smallest p of a single problem with the most seeds that there are."""
        return stats.smallest_p(max(self.seeds[1], 1))
