"""``gaba domains``: the fields in which the rule goes by another name, and their examples."""

from __future__ import annotations

from pathlib import Path

from gaba.cli.screen import paragraph
from gaba.domains import DOMAINS, Domain, find
from gaba.extras import install


def listing() -> str:
    """Every field: what is equal, when that is the wrong thing to want, and how to see it."""
    hint = f"Run the example of one: gaba domains NAME. Its picture needs {install('plots')}"
    return "\n\n".join([*map(_entry, DOMAINS), hint])


def run(name: str, folder: Path) -> None:
    """Run the example of the field ``name``; its picture goes into ``folder``.

    Raises:
        ValueError: There is no such field.
        ImportError: A library is absent; the message has the command that installs it.
    """
    domain = find(name)
    print(_entry(domain), end="\n\n", flush=True)
    domain.run(folder)


def _entry(domain: Domain) -> str:
    needs = f": {install(domain.extra)}" if domain.extra else ""
    said = {
        "what is equal": domain.equal,
        "not for": domain.wrong,
        "built on": f"{domain.built_on}{needs}",
        "note": domain.note,
    }
    lines = [paragraph(label, text) for label, text in said.items() if text]
    return "\n".join([f"{domain.name}: {domain.title}", *lines])
