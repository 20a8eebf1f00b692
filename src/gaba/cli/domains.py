"""``gaba domains``: the fields in which the rule goes by another name, and their examples."""

from __future__ import annotations

import textwrap
from pathlib import Path

from gaba.domains import DOMAINS, Domain, find

WIDTH = 100
RUN_ONE = """run one: gaba domains NAME (its picture needs matplotlib: pip install "gaba[plots]")"""


def listing() -> str:
    """Every field: what is equal, when that is the wrong thing to want, and how to see it."""
    return "\n\n".join([*map(_entry, DOMAINS), RUN_ONE])


def _entry(domain: Domain) -> str:
    needs = f'pip install "gaba[{domain.extra}]"' if domain.extra else ""
    said = {
        "equal": domain.equal,
        "wrong to want": domain.wrong,
        "built on": f"{domain.built_on}: {needs}".removesuffix(": "),
        "note": domain.note,
    }
    heading = f"{domain.name}: {domain.title}"
    return "\n".join([heading, *(_wrapped(name, text) for name, text in said.items() if text)])


def _wrapped(name: str, text: str) -> str:
    return textwrap.fill(
        f"{name}: {text}",
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )


def run(name: str, folder: Path) -> None:
    """Run the example of the field ``name``; its picture goes into ``folder``.

    Raises:
        ValueError: There is no such field.
        ImportError: A library is absent; the message names the extra.
    """
    domain = find(name)
    print(_entry(domain), end="\n\n", flush=True)
    domain.run(folder)
