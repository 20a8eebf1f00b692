"""The fields in which the rule goes by another name: one entry each, and nothing imported.

To add a field, write an adapter ``gaba/domains/NAME.py`` (it alone imports the field's library), an
example ``gaba/domains/_examples/NAME.py`` of at most 60 lines with a function
``main(folder: Path) -> None`` that prints figures and writes ``folder/NAME.png``, an entry here,
and a row in ``docs/domains.md``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import final

EXAMPLES = Path(__file__).parent / "_examples"


@final
@dataclass(frozen=True)
class Domain:
    """A field: what its adapter makes equal, when not to want that, and where to see it.

    Attributes:
        name: Of the adapter ``gaba.domains.NAME`` and of ``gaba domains NAME``.
        title: The field, in a few words.
        built_on: The libraries of the adapter.
        equal: What is equal, in one sentence, as in ``docs/domains.md``.
        wrong: When that is the wrong thing to want, in one sentence.
        extra: The extra that brings those libraries, or nothing.
        note: What to know before you run the example, or nothing.

    >>> isinstance(find("dosing"), Domain), find("dosing").example.name
    (True, 'dosing.py')
    """

    name: str
    title: str
    built_on: str
    equal: str
    wrong: str
    extra: str
    note: str = ""

    @property
    def example(self) -> Path:
        """The file of the example."""
        return EXAMPLES / f"{self.name}.py"

    def run(self, folder: Path) -> Path:
        """Run the example, which prints figures, and return its picture ``folder/NAME.png``.

        Raises:
            ImportError: A library is absent; the message has the command that installs it.

        Example:
            >>> import tempfile
            >>> from gaba.domains import find
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     find("dosing").run(Path(folder)).name
            Illustration, no medical advice: ...
            'dosing.png'
        """
        importlib.import_module(f"gaba.domains.{self.name}")  # it says what is absent
        module = importlib.import_module(f"gaba.domains._examples.{self.name}")
        folder.mkdir(parents=True, exist_ok=True)
        module.main(folder)
        return folder / f"{self.name}.png"


DOMAINS: tuple[Domain, ...] = (
    Domain(
        name="portfolio",
        title="portfolios of assets",
        built_on="skfolio",
        equal="Every asset's weight times its volatility is the same (inverse volatility), or its "
        "contribution to the portfolio's variance (equal risk contribution).",
        wrong="Portfolios that seek return: the rule sees risk alone, and it gives most to what "
        "moved least in the past.",
        extra="skfolio",
    ),
    Domain(
        name="mixing",
        title="audio mixing",
        built_on="pyloudnorm, soundfile",
        equal="Every stem has the same loudness (LUFS) behind its fader, or one in given "
        "proportions to the others.",
        wrong="A final mix: a voice that should lead, or a cymbal that should be heard now and "
        "then, must not have the loudness of the rest.",
        extra="pyloudnorm",
    ),
    Domain(
        name="ensembles",
        title="ensembles of climate models",
        built_on="xarray, dask",
        equal="Every model's weight times its RMSE on a reference period is the same; at power 2 "
        "its weight times its mean squared error.",
        wrong="Models that share code and errors: close relatives are counted several times. And a "
        "good hindcast does not promise a good projection.",
        extra="xarray",
    ),
    Domain(
        name="dosing",
        title="doses of combined drugs (an illustration, no medical advice)",
        built_on="SciPy",
        equal="Every drug is given at the same fraction of the dose that has the effect alone, "
        "d_i / D_i(E) of Loewe additivity.",
        wrong="People, never: toxicity, interactions and exposure decide, and the rule knows "
        "nothing of them.",
        extra="domains",
    ),
    Domain(
        name="federated",
        title="federated learning",
        built_on="flwr",
        equal="Every client's update times its weight has the same length, whatever its learning "
        "rate, its steps and the number of its examples.",
        wrong="Clients whose updates are long for a good reason, such as more data or data that "
        "nobody else has: they are held down. Nor for defense: an attacker of usual norm passes.",
        extra="",
        note="The strategy needs Flower (flwr), whose pins ask for an environment of its own; the "
        "example does not.",
    ),
    Domain(
        name="rewards",
        title="reinforcement learning with several rewards",
        built_on="gymnasium, mo-gymnasium",
        equal="The TD losses of all reward components have weighted gradients of the same size on "
        "the shared layers; how much a component matters to the agent stays its preference.",
        wrong="Components with nothing to teach, because they are constant, learned already or "
        "all noise: their small gradients are brought to the size of the others.",
        extra="mo-gymnasium",
    ),
    Domain(
        name="detection",
        title="object detection",
        built_on="transformers, pycocotools",
        equal="The class, box (L1) and overlap (GIoU) losses have weighted gradients of the same "
        "size on the backbone.",
        wrong="Models whose own coefficients were tuned for their data. Box and overlap want the "
        "same thing, and together they get two thirds of the gradient.",
        extra="detection",
        note="Takes some ten seconds; far too few steps for a good detector.",
    ),
)
"""Every field, in the order of the table."""


def find(name: str) -> Domain:
    """The field called ``name``.

    Raises:
        ValueError: There is none; the message lists the names.

    >>> find("portfolio").built_on
    'skfolio'
    """
    for domain in DOMAINS:
        if domain.name == name:
            return domain
    names = ", ".join(domain.name for domain in DOMAINS)
    raise ValueError(f"domains: no field is called {name!r}; use one of {names}")
