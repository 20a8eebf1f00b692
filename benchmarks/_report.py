"""What the benchmarks share: their options, a time limit, and the files that they write."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from _models import FULL, TINY, Name, Spec

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "benchmarks"
TRIAL = ROOT / "runs" / "benchmarks-quick"

Record = dict[str, Any]


@final
@dataclass(frozen=True)
class Options:
    """What the user asked of a benchmark."""

    quick: bool
    budget: float
    models: tuple[Name, ...]
    tasks: tuple[int, ...]
    out: Path
    resume: bool
    table_only: bool

    @property
    def specs(self) -> Mapping[Name, Spec]:
        """The models asked for, tiny ones in a quick run."""
        return {name: (TINY if self.quick else FULL)[name] for name in self.models}


def options(doc: str | None, *, budget: float, tasks: Sequence[int]) -> Options:
    """Read the command line; ``budget`` (s) and ``tasks`` are what a full run takes by default."""
    head, _, rest = (doc or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a trial with tiny models, not to cite"
    )
    parser.add_argument("--budget", type=float, help=f"seconds in all (default {budget:.0f})")
    parser.add_argument("--models", nargs="+", choices=list(FULL), default=list(FULL))
    parser.add_argument("--tasks", nargs="+", type=int, help="numbers of tasks K")
    parser.add_argument("--threads", type=int, help="of torch (default: as torch has it)")
    parser.add_argument("--out", type=Path, help=f"folder (default {DOCS.relative_to(ROOT)})")
    parser.add_argument("--resume", action="store_true", help="measure only what is not there")
    parser.add_argument("--table-only", action="store_true", help="measure nothing")
    asked = parser.parse_args()
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    return Options(
        quick=asked.quick,
        budget=asked.budget if asked.budget is not None else 5.0 if asked.quick else budget,
        models=tuple(asked.models),
        tasks=tuple(asked.tasks or (tasks[:2] if asked.quick else tasks)),
        out=asked.out or (TRIAL if asked.quick else DOCS),
        resume=asked.resume,
        table_only=asked.table_only,
    )


@final
@dataclass(frozen=True)
class Environment:
    """Where a figure was measured."""

    torch: str
    threads: int
    processor: str

    @classmethod
    def here(cls) -> Environment:
        """This process."""
        return cls(torch.__version__, torch.get_num_threads(), _processor())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] not in ("", "unknown") else platform.machine()


@final
class Results:
    """The records of one benchmark, one a model and K, in a JSON file written after each of them.

    An interrupted run keeps the finished ones; ``--resume`` continues from there.
    """

    def __init__(self, name: str, options: Options) -> None:
        self.path = options.out / f"{name}.json"
        self._options = options
        found = json.loads(self.path.read_text()) if self.path.is_file() else []
        self._records: list[Record] = [r for r in found if r["quick"] == options.quick]

    def measure(
        self, work: Callable[[Name, int, Spec, float], Record], share: Callable[[int], float]
    ) -> list[Record]:
        """Call ``work(name, K, spec, seconds)`` for what is asked and missing; all records.

        The seconds left of the budget are shared out again before each call, in proportion to
        ``share(K)``, so that one that took longer is paid for by the others.
        """
        specs = self._options.specs
        asked: list[tuple[Name, int]] = [(name, k) for name in specs for k in self._options.tasks]
        known = {(r["model"], r["tasks"]) for r in self._records if _complete(r)}
        known = known if self._options.resume else set()
        wanted = [] if self._options.table_only else [pair for pair in asked if pair not in known]
        started = time.monotonic()
        for i, (name, k) in enumerate(wanted):
            left = self._options.budget - (time.monotonic() - started)
            seconds = max(0.0, left) * share(k) / sum(share(other) for _, other in wanted[i:])
            print(f"{name}, K = {k}: about {seconds:.0f} s", flush=True)
            self._add({"model": name, "tasks": k, **work(name, k, specs[name], seconds)})
        return self._records

    def _add(self, record: Record) -> None:
        key = record["model"], record["tasks"]
        environment = asdict(Environment.here())
        record = {**record, "quick": self._options.quick, "environment": environment}
        others = [r for r in self._records if (r["model"], r["tasks"]) != key]
        order = list(FULL)
        self._records = sorted(
            [*others, record], key=lambda r: (order.index(r["model"]), r["tasks"])
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self._records, indent=1) + "\n")
        partial.replace(self.path)


def _complete(record: Record) -> bool:
    """Whether no method ran out of time."""
    return all(method["status"] != "not measured" for method in record["methods"].values())


def of(record: Record, name: str) -> Record:
    """What was found of one method, also in a record made when that method did not exist."""
    return record["methods"].get(name, {"status": "not measured", "note": ""})


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def where(records: Sequence[Record]) -> str:
    """In words: with which torch, on how many threads and which processor it was measured."""
    found = dict.fromkeys(Environment(**record["environment"]) for record in records)
    said = [f"torch {e.torch}, {e.threads} threads, {e.processor}" for e in found]
    warning = "**A trial run with tiny models: not to be cited.** " if records[0]["quick"] else ""
    return f"{warning}Measured with {'; in part with '.join(said)}."


def titles(records: Sequence[Record]) -> dict[str, str]:
    """The names of the models in the tables, by their short names."""
    specs = TINY if records[0]["quick"] else FULL
    return {name: specs[name].title for name in FULL if any(r["model"] == name for r in records)}


def notes(records: Sequence[Record], names: Mapping[str, str]) -> str:
    """What failed and why, and what was warned of, a line each.

    Args:
        records: each with ``"methods"``: by short name their ``"status"`` and ``"note"``.
        names: what the methods are called in the tables, by their short names.
    """
    lines: dict[str, list[int]] = {}
    for record in records:
        for name, result in record["methods"].items():
            if result["note"] and result["status"] != "not measured":
                verb = "warns" if result["status"] == "runs" else "fails"
                line = f"- {names[name]} {verb}: {result['note']}"
                lines.setdefault(line, []).append(record["tasks"])
    return "\n".join(f"{line} (K = {', '.join(map(str, ks))})" for line, ks in lines.items())


COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C00")
"""The palette of Okabe and Ito, its yellow made darker."""
GREYS = ("#000000", "#595959", "#8F8F8F", "#B5B5B5")


def panels(names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A row of panels, one a model, that share the vertical axis."""
    figure = Figure(figsize=(3.1 * max(2, len(names)) + 0.6, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, len(names), sharey=True, squeeze=False)[0])
    for axis, name in zip(axes, names, strict=True):
        axis.set_title(name.replace(", ", ",\n", 1), fontsize=9)
        axis.grid(visible=True, axis="y", color="#DDDDDD", linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    return figure, axes


def save(figure: Figure, axes: Sequence[Axes], path: Path) -> None:
    """Write the picture, with one legend for all panels below them."""
    entries: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        entries |= {lb: h for h, lb in zip(handles, labels, strict=True) if lb not in entries}
    if entries:
        figure.legend(
            list(entries.values()),
            [label.replace("`", "") for label in entries],
            loc="outside lower center",
            ncols=min(4, len(axes)),
            fontsize=8,
            frameon=False,
        )
    figure.savefig(path, dpi=110)


def write_page(path: Path, *parts: str) -> None:
    """Write a Markdown page from its paragraphs."""
    path.write_text("\n\n".join(part for part in parts if part) + "\n")
    print(f"wrote {path}", flush=True)
