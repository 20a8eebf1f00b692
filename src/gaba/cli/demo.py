"""``gaba demo``: the one command that needs no extra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Demo:
    """Show what balancing does: a table of rules, and a proof by autograd."""

    def run(self) -> None:
        """Print both."""
        from gaba import demo

        print(demo.text())
