"""Takes the packages of this distribution from the one source tree, which it shares with gaba's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = ("bench", "domains", "turbofan", "web")


class Packages(BuildHookInterface):
    """In a clone they lie in ``../src/gaba``, in an unpacked sdist in ``src/gaba``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the packages; an editable install finds them by its path."""
        if version == "editable":
            return
        root = Path(self.root)
        found = [path for path in (root / "src", root.parent / "src") if path.is_dir()]
        within = "src/gaba" if self.target_name == "sdist" else "gaba"
        build_data["force_include"] |= {
            str(found[0] / "gaba" / package): f"{within}/{package}" for package in PACKAGES
        }
