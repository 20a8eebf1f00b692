"""The page of the zoo: the verdict, the table, the picture, from the stored runs."""

from __future__ import annotations

import ast
import importlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from entry import Entry

HARM, NAIVE_HARM = 2.0, 10.0
"""By how many percent of the own figure the default, and the naive use, may be worse."""
FEW = 5
"""Seeds of a whole zoo."""
COST, SMALL_COST, LARGE = 1.10, 1.15, 5.0
"""Costs of a step, and from how many megabytes of parameters on the first holds."""
CUT = 60.0
"""Where the picture ends, in percent."""
SHOWN = {"gaba": "gaba, with roles", "naive": "gaba, all terms", "paper": "paper"}
SHOWN |= {"uncertainty": "uncertainty"}

Rows = Sequence[Mapping[str, Any]]


@final
@dataclass(frozen=True)
class Change:
    """How much better, in percent of the own sum's mean, with the 95 % interval over the seeds."""

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "–"
        if self.seeds < 2:
            return f"{self.mean:+.1f} (1)"
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f}; {self.seeds})"


def change(rows: Rows, arm: str, better: str) -> Change:
    """The change of one code's figure under ``arm``, seed by seed.

    Example:
        >>> rows = [{"arm": a, "seed": s, "figure": f}
        ...     for a, s, f in [("own", 0, 10), ("own", 1, 10), ("gaba", 0, 11), ("gaba", 1, 12)]]
        >>> round(change(rows, "gaba", "higher").mean, 9)
        15.0
    """
    own, other = figures(rows, "own"), figures(rows, arm)
    seeds = sorted(own.keys() & other.keys())
    if not seeds:
        return Change(math.nan, math.nan, math.nan, 0)
    scale = abs(statistics.fmean(own[seed] for seed in seeds)) or 1.0
    sign = 100 / scale * (1 if better == "higher" else -1)
    found = [sign * (other[seed] - own[seed]) for seed in seeds]
    mean, n = statistics.fmean(found), len(found)
    if n < 2:
        return Change(mean, -math.inf, math.inf, n)
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(found) / math.sqrt(n)
    return Change(mean, mean - half, mean + half, n)


def figures(rows: Rows, arm: str) -> dict[int, float]:
    """The figure by seed; a run that crashed has none."""
    return {row["seed"]: row["figure"] for row in rows if row["arm"] == arm and "figure" in row}


def cost(rows: Rows, arm: str) -> float:
    """Processor time of the training in units of the own sum's, the median over the seeds."""
    seconds = {(row["arm"], row["seed"]): row.get("seconds", math.nan) for row in rows}
    found = [
        seconds[arm, seed] / seconds["own", seed]
        for name, seed in seconds
        if name == arm and seconds.get(("own", seed), 0) > 0
    ]
    found = [ratio for ratio in found if math.isfinite(ratio)]
    return statistics.median(found) if found else math.nan


def same_bits(rows: Rows) -> bool | None:
    """Whether every run that only looks on ended with the own run's parameters."""
    by = {(row["arm"], row["seed"]): row.get("digest") for row in rows}
    pairs = [(by["own", s], d) for (a, s), d in by.items() if a == "observe" and ("own", s) in by]
    return all(own == seen for own, seen in pairs) if pairs else None


def named(rows: Rows, fixed: Sequence[str]) -> str:
    """In how many naive runs the diagnosis names a regularizer."""
    runs = [row for row in rows if row["arm"] == "naive" and "named" in row]
    said = [row for row in runs if set(row["named"]) & set(fixed)]
    return f"{len(said)} of {len(runs)}" if runs else "–"


def lines_changed(source: str) -> int:
    """The lines marked ``# +``, and those that ``arm.change`` puts in place of others."""
    tree = ast.parse(source)
    named = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    count = sum(line.rstrip().endswith("# +") for line in source.splitlines())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "arm.change":
            lines = node.args[1]
            if isinstance(lines, ast.Name):
                lines = named[lines.id]
            assert isinstance(lines, ast.Dict), f"no dictionary: {ast.unparse(lines)}"
            for new in lines.values:
                value = named.get(new.id, new) if isinstance(new, ast.Name) else new
                texts = [n.value for n in ast.walk(value) if isinstance(n, ast.Constant)]
                count += 1 + sum(str(text).count("\n") for text in texts)
    return count


def entries(rows: Rows) -> dict[str, Entry]:
    """The codes that have runs."""
    names = sorted({row["code"] for row in rows})
    return {name: importlib.import_module(f"codes.{name}").ENTRY for name in names}


def judged(found: Mapping[str, Rows], known: Mapping[str, Entry]) -> list[str]:
    """The verdict: sentences on harm, gain, naive use, observation and cost."""
    by = {
        arm: {c: change(rows, arm, known[c].better) for c, rows in found.items()} for arm in SHOWN
    }
    roles = {c: one for c, one in by["gaba"].items() if one.seeds}
    naive = {c: one for c, one in by["naive"].items() if one.seeds}
    looked = [c for c, rows in found.items() if same_bits(rows) is not None]
    different = [c for c in looked if not same_bits(found[c])]
    broken = sorted({r["code"] for rows in found.values() for r in rows if "error" in r})
    costs = {c: cost(found[c], "gaba" if c in roles else "naive") for c in found}
    dear = [c for c in costs if costs[c] > (COST if size(found[c]) > LARGE else SMALL_COST)]
    seeds = [one.seeds for one in roles.values()]

    def told(codes: Sequence[str]) -> str:
        return f": {'; '.join(known[c].title for c in codes)}" if codes else ""

    def worse(by: Mapping[str, Change], most: float) -> str:
        sure = [c for c, one in by.items() if one.high < -most]
        mean = [c for c, one in by.items() if one.mean < -most]
        return (
            f"worse than the code's own sum by more than {most:g} % on {len(mean)} of {len(by)} "
            f"codes by the mean{told(mean)}; on {len(sure)} by the whole interval{told(sure)}."
        )

    gains = [c for c, one in roles.items() if one.mean > 0]
    surely = [c for c, one in roles.items() if one.low > 0]
    said = [
        f"With roles, the default is {worse(roles, HARM)} It is better on {len(gains)} by the "
        f"mean, on {len(surely)} by the whole interval{told(surely)}.",
        f"With every term balanced, regularizers too, it is {worse(naive, NAIVE_HARM)}",
        f"Looking on changed the result of {len(different)} of {len(looked)} codes"
        f"{told(different)}: the parameters are compared bit for bit. "
        f"{len(broken)} of {len(found)} codes had a run that ended in an error{told(broken)}.",
        f"A training costs more than the aim ({COST:g} of the own above {LARGE:g} MB of "
        f"parameters, {SMALL_COST:g} below) on {len(dear)} of {len(found)}{told(dear)}.",
    ]
    if min(seeds, default=0) < FEW:
        said.insert(
            0,
            f"Only {min(seeds, default=0)} of {FEW} seeds "
            "are there, and intervals from so few exclude almost nothing: read the means.",
        )
    return said


def size(rows: Rows) -> float:
    """Megabytes of parameters."""
    return max((row.get("megabytes", 0.0) for row in rows), default=0.0)


def table(found: Mapping[str, Rows], known: Mapping[str, Entry], codes: Path) -> list[str]:
    """One line a code."""
    lines = [
        "| code | own figure | " + " | ".join(SHOWN.values()) + " | cost | lines | named |",
        "| --- | --- | " + "--- | " * len(SHOWN) + "--- | --- | --- |",
    ]
    for code, rows in found.items():
        entry, own = known[code], list(figures(rows, "own").values())
        mean = f"{statistics.fmean(own):.4g}" if own else "–"
        dear = cost(rows, "gaba" if figures(rows, "gaba") else "naive")
        cells = [str(change(rows, arm, entry.better)) for arm in SHOWN]
        lines.append(
            f"| {entry.title} | {mean} {entry.metric}, {entry.better} is better | "
            + " | ".join(cells)
            + f" | {dear:.2f} | {lines_changed((codes / f'{code}.py').read_text())} | "
            f"{named(rows, entry.fixed)} |"
        )
    return lines


def settings(found: Mapping[str, Rows], known: Mapping[str, Entry]) -> list[str]:
    """The default with other settings, on the seeds that have them; nothing if none was run."""
    arms = sorted({r["arm"] for rows in found.values() for r in rows if "@" in r["arm"]})
    if not arms:
        return []
    lines = ["| code | the default | " + " | ".join(f"`{arm[5:]}`" for arm in arms) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(arms))
    worse = dict.fromkeys(arms, 0)
    counted = 0
    for code, rows in found.items():
        seeds = [set(figures(rows, arm)) for arm in arms if figures(rows, arm)]
        if len(seeds) < len(arms):
            continue
        common = set.intersection(*seeds)
        same = [row for row in rows if row["seed"] in common]
        cells = [change(same, arm, known[code].better) for arm in ("gaba", *arms)]
        if not cells[0].seeds:
            continue
        counted += 1
        for arm, one in zip(arms, cells[1:], strict=True):
            worse[arm] += one.mean < cells[0].mean - HARM
        lines.append(f"| {known[code].title} | " + " | ".join(map(str, cells)) + " |")
    said = "; ".join(f"`{arm[5:]}` on {n}" for arm, n in worse.items())
    return [
        "## The limit and the recovery",
        "",
        f"The default has a limit of 64 and a recovery of 8. Worse than it by more than {HARM:g} "
        f"points of {counted} codes: {said}.",
        "",
        *lines,
        "",
    ]


def parts(found: Mapping[str, Rows], known: Mapping[str, Entry]) -> list[str]:
    """Where each code comes from, and which of its losses are balanced."""
    lines = ["| code | package | balanced | added as they are |", "| --- | --- | --- | --- |"]
    for code in found:
        entry = known[code]
        few = len(entry.tasks) < 2
        balanced = "nothing is left to balance" if few else ", ".join(entry.tasks)
        fixed = ", ".join(entry.fixed) + (f". {entry.why_fixed}" if entry.why_fixed else "")
        lines.append(f"| {entry.title} | {entry.package} | {balanced} | {fixed or '–'} |")
    return lines


def picture(found: Mapping[str, Rows], known: Mapping[str, Entry]) -> Figure:
    """The changes with their intervals, a code a row."""
    figure = Figure(figsize=(9, 1.2 + 0.42 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = ("#0b6e99", "#d1741c", "#777777", "#8a4fa3")
    for n, (arm, color) in enumerate(zip(SHOWN, colors, strict=True)):
        rows = [(y, change(r, arm, known[c].better)) for y, (c, r) in enumerate(found.items())]
        rows = [(y + 0.17 * (n - 1.5), one) for y, one in rows if one.seeds]
        if not rows:
            continue
        places, means = [y for y, _ in rows], [one.mean for _, one in rows]
        axes.plot(np.clip(means, -CUT, CUT), places, "o", ms=4, color=color, label=SHOWN[arm])
        wide = [(y, one) for y, one in rows if math.isfinite(one.low)]
        lows, highs = [one.low for _, one in wide], [one.high for _, one in wide]
        ends = np.clip(lows, -CUT, CUT), np.clip(highs, -CUT, CUT)
        axes.hlines([y for y, _ in wide], *ends, color=color, lw=1)
    axes.axvline(0, color="black", lw=0.8)
    axes.axvline(-HARM, color="#b00020", lw=0.8, ls=":")
    axes.set_yticks(range(len(found)), [known[c].title for c in found])
    axes.invert_yaxis()
    axes.set_xlim(-1.03 * CUT, 1.03 * CUT)
    axes.set_xlabel(f"better than the own sum (%), with the 95 % interval; cut at {CUT:g}")
    figure.legend(loc="outside lower center", ncol=4, frameon=False)
    return figure


def write(rows: Rows, page: Path) -> None:
    """The page and its picture, from all stored runs."""
    known = entries(rows)
    found = {code: [row for row in rows if row["code"] == code] for code in known}
    text = [
        "# The zoo: public training codes, switched on",
        "",
        *(f"{line}\n" for line in judged(found, known)),
        "![How much better or worse each way ends](zoo.png)",
        "",
        "How much better than the code's own sum, in percent of its mean figure, seed by seed: "
        "mean (95 % interval of the t distribution; seeds). Cost: processor time of the training "
        "in units of the own. Lines: how many were changed. Named: in how many of the "
        "naive runs the diagnosis names a regularizer.",
        "",
        *table(found, known, Path(__file__).parent / "codes"),
        "",
        "Each run takes about half a minute on one core. Made by `make zoo`, which resumes; the "
        "versions are in `requirements/zoo.txt`.",
        "",
        *settings(found, known),
        "## What is trained",
        "",
        *parts(found, known),
        "",
    ]
    page.write_text("\n".join(text), encoding="utf-8")
    picture(found, known).savefig(page.with_suffix(".png"), dpi=110)
