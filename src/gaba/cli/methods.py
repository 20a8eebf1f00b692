"""``gaba methods``: every method by one name, what it computes, needs and costs."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gaba.cli.screen import console, paragraph
from gaba.extras import install
from gaba.methods import GROUPS, METHODS, START, Entry, find, listed

SNIPPET = """\
import gaba

balancer = gaba.Balancer(["rul", "health"], model.backbone, method="{name}"{settings})
balancer.backward(losses)  # instead of sum(losses.values()).backward()
optimizer.step()"""

EXAMPLES = {"fixed": "1,20", "single": "rul", "from-run": "runs/first"}


def show(name: str | None) -> None:
    """Print all methods, or everything about one."""
    console().print(listing() if name is None else details(name), markup=False)


def listing() -> RenderableType:
    """All methods: those to start with, then the others by group."""
    parts: list[RenderableType] = []
    for title, entries in listed().items():
        if all(entry.name in START for entry in entries):
            parts.append(_start(title, entries))
            continue
        table = _table(title, "multipliers m or weights λ", "needs", "cost", "source")
        for entry in entries:
            cells = (written(entry), entry.formula, entry.needs, entry.cost, entry.source)
            table.add_row(*(Text(cell) for cell in cells))
        parts.append(table)
    if not _torchjd():
        parts.append(Text(f"the peers need torchjd: {install('bench')}"))
    parts.append(Text("about one of them: gaba methods NAME"))
    return Group(*parts)


def _start(title: str, entries: Sequence[Entry]) -> Table:
    table = _table(title, "what it does", "needs", "cost")
    for entry in entries:
        cells = (written(entry), START[entry.name], entry.needs, entry.cost)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("method", no_wrap=True)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def written(entry: Entry) -> str:
    """The name of a method, with its argument if it has one.

    >>> written(METHODS["gaba"]), written(METHODS["single"])
    ('gaba', 'single:TASK')
    """
    word = entry.argument.partition(" ")[0].rstrip(",")
    return f"{entry.name}:{word}" if word else entry.name


def details(name: str) -> str:
    """Everything about the method ``name``, and the lines that use it.

    Raises:
        ValueError: There is no such method.
    """
    word, _, argument = name.partition(":")
    entry = METHODS[word] if word in METHODS else find(name)[0]
    name = f"{entry.name}:{argument or EXAMPLES[entry.name]}" if entry.argument else entry.name
    said = {
        "multipliers": entry.formula,
        "argument": entry.argument,
        "needs": entry.needs,
        "cost": f"{entry.cost}, beyond one backward pass",
        "source": entry.source,
    }
    if entry.group == "peer" and not _torchjd():
        said["note"] = f"needs torchjd, which is not installed: {install('bench')}"
    lines = [paragraph(label, text) for label, text in said.items() if text]
    settings = ", optimizer=optimizer" if "optimizer=" in entry.needs else ""
    snippet = textwrap.indent(SNIPPET.format(name=name, settings=settings), "  ")
    return "\n".join([f"{written(entry)}: {GROUPS[entry.group]}", *lines, "", snippet])


def _torchjd() -> bool:
    return importlib.util.find_spec("torchjd") is not None
