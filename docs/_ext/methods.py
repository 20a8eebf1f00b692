"""Writes the table of methods from `gaba.methods.METHODS` before each build."""

from __future__ import annotations

from collections.abc import Iterator

import reference

TITLE = "Every method"
GROUPS = {
    "own": "Rules of this library",
    "control": "Controls: weightings that adapt to nothing, or to little",
    "published": "Published methods",
    "relative": "The same rule as other fields write it",
    "peer": "Methods of TorchJD, of which g_k are the gradients and w_k the weights",
}


def page() -> Iterator[str]:
    """The page, line by line."""
    from gaba.methods import METHODS

    yield from (TITLE, "=" * len(TITLE), "")
    yield "``gaba.methods.make(NAME, tasks, shared)`` is the Balancer of a method; ``gaba methods``"
    yield "prints this list. λ_k are weights of any sum, g_k norms, L_k losses, G is the Gramian."
    for group, title in GROUPS.items():
        yield from ("", title, "-" * len(title), "")
        for method in METHODS.values():
            if method.group == group:
                yield f"``{method.name}``"
                yield f"   ``{method.formula}``"
                yield ""
                parts = {"Source": method.source, "needs": method.needs, "costs": method.cost}
                said = (f"{word}: {text}" for word, text in parts.items() if text)
                yield "   " + "; ".join(said).replace("|", "\\|").replace("*", "\\*") + "."
                yield ""


setup = reference.adds("methods.rst", page)
