"""Six recorded stems, 38 LU apart and one silent, to one mix and back to a WAV file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from gaba.domains import _sentences as say
from gaba.domains._picture import COLOURS, panels, save
from gaba.domains.mixing import loudness, mix, read, true_peak, write

RATE, SECONDS, LEVEL, CEILING = 44100, 8, -23.0, -1.0


def record(folder: Path) -> dict[str, Path]:
    """Stereo WAV files of a made-up band."""
    random = np.random.default_rng(0)
    time = np.arange(RATE * SECONDS) / RATE
    beat = np.exp(-12 * (time % 0.25))
    chord = sum(np.sin(2 * np.pi * f * time) for f in (220.0, 277.18, 329.63))
    voice = sum(np.sin(2 * np.pi * 196 * n * time + 3 * np.sin(31 * time)) / n for n in range(1, 9))
    stems = {
        "bass": 0.6 * np.sin(2 * np.pi * 55 * time) ** 3,
        "drums": 0.2 * beat * random.normal(size=time.size),
        "voice": 0.02 * voice * (1 + np.sin(7 * time)),
        "pad": 0.004 * chord,
        "hiss": 0.002 * random.normal(size=time.size),
        "muted": 0.0 * time,
    }
    for name, audio in stems.items():
        write(folder / f"{name}.wav", np.stack([audio, audio[::-1]], axis=1), RATE)
    return {name: folder / f"{name}.wav" for name in stems}


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as recorded:
        stems = read(record(Path(recorded)))
    made = mix(stems, level=LEVEL, ceiling=CEILING)
    write(folder / "mixing.wav", made.audio, made.rate)
    heard = [name for name in stems.audio if name not in made.silent]
    after = [loudness(made.gains[name] * stems.audio[name], RATE) - made.guard for name in heard]
    say.show(*say.faders(made.before, dict(zip(heard, after, strict=True)), LEVEL))
    say.show(say.summed(loudness(made.audio, RATE), LEVEL, len(heard), made.guard))
    say.show(say.headroom(true_peak(made.audio), CEILING, made.guard))
    print(f"mix: {folder / 'mixing.wav'}")
    figure, (left, right) = panels("Stems of a mix", "The mix")
    left.bar(heard, [made.before[name] + 70 for name in heard], 0.8, -70, color=COLOURS[4])
    left.plot(heard, after, "o", color=COLOURS[5], label="behind the fader")
    left.set(ylabel="LUFS (bars: as recorded)", ylim=(-70, 0))
    left.legend(fontsize=8)
    right.plot(np.arange(len(made.audio)) / RATE, made.audio[:, 0], lw=0.3, color=COLOURS[0])
    right.set(xlabel="seconds", ylabel="left channel", ylim=(-0.6, 0.6))
    save(figure, folder / "mixing.png")
