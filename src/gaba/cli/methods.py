"""``gaba methods``: every method by one name, what it computes, needs and costs."""

from __future__ import annotations

import importlib.util
import textwrap

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gaba.cli.screen import console, paragraph
from gaba.extras import install
from gaba.methods import METHODS, Entry, find

GROUPS = {
    "own": "methods of this library",
    "control": "controls",
    "published": "published methods",
    "relative": "the same rule as other fields write it",
    "peer": "peers, through TorchJD",
}

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
    """All methods, by group."""
    parts: list[RenderableType] = []
    for group, title in GROUPS.items():
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
        table.add_column("method", no_wrap=True)
        for heading in ("multipliers m or weights λ", "needs", "cost", "source"):
            table.add_column(heading, overflow="fold")
        for entry in METHODS.values():
            if entry.group == group:
                cells = (written(entry), entry.formula, entry.needs, entry.cost, entry.source)
                table.add_row(*(Text(cell) for cell in cells))
        parts.append(table)
    if not _torchjd():
        parts.append(Text(f"the peers need torchjd: {install('bench')}"))
    parts.append(Text("about one of them: gaba methods NAME"))
    return Group(*parts)


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
    word = name.partition(":")[0]
    entry = METHODS[word] if word in METHODS else find(name)[0]
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
    if entry.argument and ":" not in name:
        name = f"{word}:{EXAMPLES[word]}"
    settings = ", optimizer=optimizer" if "optimizer=" in entry.needs else ""
    snippet = textwrap.indent(SNIPPET.format(name=name, settings=settings), "  ")
    return "\n".join([f"{written(entry)}: {GROUPS[entry.group]}", *lines, "", snippet])


def _torchjd() -> bool:
    return importlib.util.find_spec("torchjd") is not None
