"""``gaba methods``: every method by one name, what it computes, needs and costs."""

from __future__ import annotations

import importlib.util
import textwrap

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gaba.methods import METHODS, Method, find

GROUPS = {
    "own": "rules of this library",
    "control": "controls",
    "published": "published methods",
    "relative": "the same rule as other fields write it",
    "peer": "peers, through TorchJD",
}
WIDTH = 100
"""Of the table where nobody looks at it on a terminal."""

SNIPPET = """\
from gaba import methods

balancer = methods.make({name!r}, {tasks}, model.backbone{settings})
balancer.backward(losses)  # instead of sum(losses.values()).backward()
optimizer.step()"""


def show(name: str | None) -> None:
    """Print all methods, or everything about one."""
    if name is not None:
        print(details(name))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    console.print(listing())


def listing() -> RenderableType:
    """All methods, by group."""
    parts: list[RenderableType] = []
    for group, title in GROUPS.items():
        found = [method for method in METHODS.values() if method.group == group]
        if not found:
            continue
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
        table.add_column("method", no_wrap=True)
        for heading in ("weights", "needs", "cost", "source"):
            table.add_column(heading, overflow="fold")
        for method in found:
            cells = (written(method), method.formula, method.needs, method.cost, method.source)
            table.add_row(*(Text(cell) for cell in cells))
        parts.append(table)
    if not _torchjd():
        parts.append(Text('the peers need torchjd: pip install "gaba[bench]"'))
    parts.append(Text("about one of them: gaba methods NAME"))
    return Group(*parts)


def written(method: Method) -> str:
    """How the name is written: with its argument, where it has one.

    >>> written(METHODS["gaba"]), written(METHODS["single"])
    ('gaba', 'single:TASK')
    """
    word = method.argument.partition(" ")[0].rstrip(",")
    return f"{method.name}:{word}" if word else method.name


def details(name: str) -> str:
    """Everything about the method ``name``, and the lines that use it.

    Raises:
        ValueError: there is no such method.
    """
    word = name.partition(":")[0]
    method = METHODS[word] if word in METHODS else find(name)[0]
    said = {
        "weights": method.formula,
        "argument": method.argument,
        "needs": method.needs,
        "cost": f"{method.cost}, beyond one backward pass",
        "source": method.source,
    }
    absent = method.group == "peer" and not _torchjd()
    said["note"] = 'needs torchjd, which is not installed: pip install "gaba[bench]"' * absent
    heading = f"{written(method)}: {GROUPS[method.group]}"
    lines = [_wrapped(label, text) for label, text in said.items() if text]
    example = f"{word}:{_EXAMPLES.get(word, '...')}" if method.argument else word
    settings = ", optimizer=optimizer" if "optimizer=" in method.needs else ""
    snippet = SNIPPET.format(
        name=name if ":" in name else example, tasks='["rul", "health"]', settings=settings
    )
    return "\n".join([heading, *lines, "", textwrap.indent(snippet, "  ")])


_EXAMPLES = {"fixed": ".05,.95", "single": "rul", "from-run": "runs/first"}


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(
        f"{label}: {text}",
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )


def _torchjd() -> bool:
    return importlib.util.find_spec("torchjd") is not None
