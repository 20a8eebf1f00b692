"""``gaba methods``: every method by one name, what it computes, needs and costs."""

from __future__ import annotations

import importlib.util
import textwrap

from gaba.cli.screen import WIDTH, paragraph
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
    print(listing() if name is None else details(name))


def listing() -> str:
    """All methods on one screen: those to start with and what they do, then names by group.

    >>> print(listing().partition("paper")[0].rstrip())
    start here
      gaba         balances any number of tasks at 5 % of a step: the default
      observe      changes nothing and says whether a loss dominates
    """
    parts: list[str] = []
    for title, entries in listed().items():
        if all(entry.name in START for entry in entries):
            lines = [f"  {written(entry):12} {START[entry.name]}" for entry in entries]
        else:
            names = "  ".join(written(entry) for entry in entries)
            lines = [textwrap.indent(line, "  ") for line in wrapped(names)]
        parts.append("\n".join([title, *lines]))
    if not _torchjd():
        parts.append(f"The methods of TorchJD need torchjd: {install('bench')}")
    parts.append("What one computes, needs and costs, and how to use it: gaba methods NAME")
    return "\n\n".join(parts)


def wrapped(names: str) -> list[str]:
    """Names in lines; none is broken at its dash."""
    return textwrap.wrap(names, WIDTH - 2, break_on_hyphens=False)


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
