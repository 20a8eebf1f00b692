"""Writes the tables of methods from `gaba.methods.METHODS` before each build."""

from __future__ import annotations

from collections.abc import Iterator

import reference

TITLE = "Every method"
GROUPS = {
    "own": "Methods of this library",
    "control": "Controls, which adapt to little or nothing",
    "published": "Published methods",
    "relative": "The same rule as other fields write it",
    "peer": "Methods of TorchJD",
}
COLUMNS = {"multipliers": "formula", "needs": "needs", "cost": "cost", "source": "source"}
"""The heading of a column → the attribute of an entry."""


def page() -> Iterator[str]:
    """The page, line by line."""
    from gaba.methods import METHODS

    yield from (TITLE, "=" * len(TITLE), "")
    yield '``gaba.Balancer(tasks, shared, method="NAME")`` uses a method. ``gaba methods`` prints'
    yield "this list. m_k are multipliers, λ_k weights, g_k norms, L_k losses; G is the Gramian."
    yield "The cost is beyond one backward pass. For TorchJD's methods g_k are gradients and w_k"
    yield "multipliers, which may be negative."
    for group, title in GROUPS.items():
        yield from ("", title, "-" * len(title), "")
        yield from (".. list-table::", "   :header-rows: 1", "")
        yield from _row(["method", *COLUMNS])
        for entry in METHODS.values():
            if entry.group == group:
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
