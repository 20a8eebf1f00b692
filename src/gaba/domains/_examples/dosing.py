"""Three drugs with Hill curves that do a third of an effect each; an illustration only."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gaba.domains import _sentences as say
from gaba.domains._picture import COLOURS, panels, save
from gaba.domains.dosing import Curve, Hill, effect_of, split

DRUGS: dict[str, Curve] = {
    "strong": Hill(top=1.0, half=0.2, slope=1.5),
    "middle": Hill(top=1.0, half=5.0, slope=1.0),
    "weak": Hill(top=0.8, half=60.0, slope=2.0),
}
EFFECT = 0.5


def main(folder: Path) -> None:
    print("Illustration, no medical advice: made-up drugs, combined by Loewe additivity.")
    shared = split(DRUGS, EFFECT)
    alone = {name: drug.dose(EFFECT) for name, drug in DRUGS.items()}
    say.show(*say.doses(shared.doses, alone, effect_of(DRUGS, shared.doses)))
    say.show(say.unequal(alone))

    figure, (left, right) = panels("What each drug does alone", "The same effect, two drugs")
    doses = np.geomspace(0.01, 1000, 200)
    for colour, (name, drug) in zip(COLOURS, DRUGS.items(), strict=False):
        left.semilogx(doses, [drug.effect(dose) for dose in doses], color=colour, label=name)
        left.plot(drug.dose(EFFECT), EFFECT, "o", color=colour)
        left.plot(shared.doses[name], drug.effect(shared.doses[name]), "s", color=colour)
    left.axhline(EFFECT, color="#595959", lw=0.8, ls=":")
    left.set(xlabel="mg (circle: alone, square: its third)", ylabel="effect")
    left.legend(fontsize=8)
    for colour, effect in zip(COLOURS, (0.25, 0.5, 0.7), strict=False):
        ends = [DRUGS[name].dose(effect) for name in ("strong", "weak")]
        right.plot([ends[0], 0], [0, ends[1]], color=colour, label=f"effect {effect}")
        right.plot(ends[0] / 2, ends[1] / 2, "s", color=colour)
    right.set(xlabel="mg of strong", ylabel="mg of weak (squares: equal parts)")
    right.legend(fontsize=8)
    figure.suptitle("Made-up drugs: an illustration, no medical advice", fontsize=11)
    save(figure, folder / "dosing.png")
