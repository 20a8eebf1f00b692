"""Writes the tables of methods from `gaba.methods.METHODS` before each build."""

from __future__ import annotations

from collections.abc import Iterator

import reference

TITLE = "Every method"
COLUMNS = {"multipliers": "formula", "needs": "needs", "cost": "cost", "source": "source"}
"""The heading of a column → the attribute of an entry."""


def page() -> Iterator[str]:
    """The page, line by line."""
    from gaba.methods import START, listed

    yield from (TITLE, "=" * len(TITLE), "")
    yield '``gaba.Balancer(tasks, shared, method="NAME")`` uses a method. ``gaba methods`` prints'
    yield "this list. m_k are multipliers, λ_k weights, g_k norms, L_k losses; G is the Gramian."
    yield "The cost is beyond one backward pass. For TorchJD's methods g_k are gradients and w_k"
    yield "multipliers, which may be negative. Case, dashes and underscores in a name do not count."
    for title, entries in listed().items():
        heading = title[0].upper() + title[1:]
        yield from ("", heading, "-" * len(heading), "")
        told = [
            f"- ``{entry.name}`` {START[entry.name]}." for entry in entries if entry.name in START
        ]
        if told:
            yield from (*told, "")
        yield from (".. list-table::", "   :header-rows: 1", "")
        yield from _row(["method", *COLUMNS])
        for entry in entries:
            word = entry.argument.partition(" ")[0].rstrip(",")
            name = f"{entry.name}:{word}" if word else entry.name
            cells = {heading: getattr(entry, field) for heading, field in COLUMNS.items()}
            formula = f"``{cells.pop('multipliers')}``"
            yield from _row([f"``{name}``", formula, *map(_escaped, cells.values())])


def _row(cells: list[str]) -> Iterator[str]:
    for i, cell in enumerate(cells):
        yield f"   {'  ' if i else '* '}- {cell}".rstrip()


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


setup = reference.adds("methods.rst", page)
