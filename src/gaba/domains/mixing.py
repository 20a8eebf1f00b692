"""Audio mixing: faders that bring stems to equal loudness, or to loudness in given proportions.

The norm of a stem is its loudness as an amplitude, 10^(LUFS / 20): a gain multiplies it, as a
weight multiplies a norm. pyloudnorm measures loudness by ITU-R BS.1770-4; soundfile reads and
writes WAV files.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from gaba.extras import needs
from gaba.rules import InverseNorm, Targets

with needs("mixing needs", "pyloudnorm", "pyloudnorm", "soundfile", "scipy"):
    import pyloudnorm
    import soundfile
    from scipy.signal import resample_poly  # scipy comes with pyloudnorm

__all__ = ["Mix", "Stems", "loudness", "mix", "read", "true_peak", "write"]

GATE = -70.0
"""What is below is silence, in LUFS (ITU-R BS.1770-4)."""
PASSES = 4
"""How often stems are measured: a gain can lift quiet passages over the gate of the meter."""


@final
@dataclass(frozen=True)
class Stems:
    """The stems of one piece, each (samples, channels), by name, with their rate in Hz.

    Raises:
        ValueError: There is none, a stem is empty, has other channels than the first or more than
            five, or holds a number that is not finite; or the rate is not positive.

    Example:
        >>> Stems({"voice": np.zeros((48000, 2))}, 48000).channels
        2
    """

    audio: Mapping[str, np.ndarray]
    rate: int

    def __post_init__(self) -> None:
        if not self.audio:
            raise ValueError("stems: there must be at least one, found none; give audio by name")
        if not self.rate > 0:
            raise ValueError(f"stems: the rate must be positive, found {self.rate}; give it in Hz")
        for name, audio in self.audio.items():
            _check(name, audio, self.channels)

    @property
    def channels(self) -> int:
        """How many channels every stem has."""
        return _channels(next(iter(self.audio.values())))


@final
@dataclass(frozen=True)
class Mix:
    """A mix and its faders.

    Attributes:
        audio: The sum of the stems behind their faders (samples, channels).
        rate: In Hz.
        gains: The factor of each stem, with that of the guard.
        before: The loudness of each stem as recorded, in LUFS; −∞ if silent.
        silent: The stems that no gain makes loud; their gain is that of the guard.
        guard: What the true-peak guard took from the whole mix, in dB: 0 or less.

    Example:
        >>> noise = 0.1 * np.random.default_rng(0).normal(size=(48000, 1))
        >>> made = mix(Stems({"voice": noise, "muted": 0 * noise}, 48000))
        >>> made.silent, made.before["muted"], made.guard, made.audio.shape
        (('muted',), -inf, 0.0, (48000, 1))
    """

    audio: np.ndarray
    rate: int
    gains: dict[str, float]
    before: dict[str, float]
    silent: tuple[str, ...]
    guard: float


def loudness(audio: np.ndarray, rate: int) -> float:
    """The integrated loudness of ``audio`` (samples,) or (samples, channels), in LUFS.

    −∞ if all of it lies below the absolute gate of −70 LUFS. Audio shorter than the meter's block
    of 0.4 s is measured with silence behind it.

    Source: ITU-R BS.1770-4, equations 3 to 7.

    Example:
        >>> time = np.arange(48000) / 48000
        >>> abs(loudness(np.sin(2 * np.pi * 997 * time), 48000) + 3.01) < 0.1
        True
    """
    block = math.ceil(0.4 * rate)
    short = max(0, block - len(audio))
    padded = np.pad(audio, [(0, short)] + [(0, 0)] * (audio.ndim - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # the logarithm of silence
        value = float(pyloudnorm.Meter(rate).integrated_loudness(padded))
    return -math.inf if math.isnan(value) else value


def true_peak(audio: np.ndarray) -> float:
    """The highest level between the samples of ``audio``, in dBTP; −∞ for silence.

    20 log₁₀ max |x|, over the signal x at four times its rate.

    Source: ITU-R BS.1770-4, annex 2.

    Example:
        A sine whose samples all miss its crests.

        >>> audio = np.sin(np.pi / 2 * np.arange(4800) + np.pi / 4)
        >>> round(20 * np.log10(np.abs(audio).max()).item(), 2), abs(true_peak(audio)) < 0.5
        (-3.01, True)
    """
    between = np.abs(resample_poly(audio, 4, 1, axis=0)).max(initial=0.0)
    peak = max(float(between), float(np.abs(audio).max(initial=0.0)))
    return 20 * math.log10(peak) if peak > 0 else -math.inf


def mix(
    stems: Stems,
    *,
    level: float = -23.0,
    above: Mapping[str, float] | None = None,
    ceiling: float = -1.0,
) -> Mix:
    """Bring every stem to one loudness, and add them up.

    The gains are λ_k · 10^(L/20) / (λ_k g_k / r_k), with the weights λ of `Targets` for the norms
    g_k = 10^(LUFS_k / 20) and the ratios r_k = 10^(above_k / 20). The fraction is the same for all
    k. K unrelated stems give a mix of L + 10 log₁₀ Σ r_k² LUFS. Silence follows shorter stems. A
    silent stem stays as it is.

    Args:
        stems: What to mix.
        level: L, the loudness of a stem behind its fader, in LUFS.
        above: How much louder than L a stem should be, in LU, by name; less loud if negative.
        ceiling: The highest true peak of the mix, in dBTP. A mix above it is turned down as a
            whole, by the ``guard``.

    Raises:
        ValueError: ``above`` names a stem that is not there, a number is not finite, or a stem is
            to be as low as −70 LUFS.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(2, 48000, 1))
        >>> stems = Stems({"near": 0.1 * noise[0], "far": 0.001 * noise[1]}, 48000)
        >>> made = mix(stems)
        >>> [round(loudness(made.gains[name] * stems.audio[name], 48000), 1) for name in made.gains]
        [-23.0, -23.0]
        >>> round(loudness(made.audio, 48000))
        -20
    """
    ratios = _ratios(stems, level, above or {}, ceiling)
    before = {name: loudness(audio, stems.rate) for name, audio in stems.audio.items()}
    heard = [name for name in stems.audio if before[name] > -math.inf]
    gains = dict.fromkeys(stems.audio, 1.0)
    for _ in range(PASSES if heard else 0):
        now = [loudness(gains[name] * stems.audio[name], stems.rate) for name in heard]
        norms = 10 ** (np.asarray(now) / 20)
        wanted = tuple(ratios[name] for name in heard)
        weights = Targets(wanted, InverseNorm())(norms)
        common = weights * norms / wanted
        for name, gain in zip(heard, weights * 10 ** (level / 20) / common, strict=True):
            gains[name] *= float(gain)
    audio = _sum(stems, gains)
    guard = min(0.0, ceiling - true_peak(audio))
    factor = 10 ** (guard / 20)
    gains = {name: factor * gain for name, gain in gains.items()}
    silent = tuple(name for name in stems.audio if name not in heard)
    return Mix(factor * audio, stems.rate, gains, before, silent, guard)


def read(paths: Mapping[str, Path | str]) -> Stems:
    """The stems in WAV files (or others that soundfile reads), by name.

    Raises:
        ValueError: Files differ in their sample rate or channels; nothing is resampled or upmixed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(Path(folder, "tone.wav"), np.full((4410, 1), 0.5), 44100)
        ...     stems = read({"tone": Path(folder, "tone.wav")})
        >>> stems.rate, stems.channels, len(stems.audio["tone"])
        (44100, 1, 4410)
    """
    audio: dict[str, np.ndarray] = {}
    rates: dict[str, int] = {}
    for name, path in paths.items():
        audio[name], rates[name] = soundfile.read(str(path), dtype="float64", always_2d=True)
    if len(set(rates.values())) > 1:
        found = ", ".join(f"{name} {rate} Hz" for name, rate in rates.items())
        raise ValueError(
            f"read: stems must have one sample rate, found {found}; resample them beforehand"
        )
    return Stems(audio, next(iter(rates.values()), 1))


def write(path: Path | str, audio: np.ndarray, rate: int, subtype: str = "PCM_24") -> None:
    """Write ``audio`` (samples, channels) as a WAV file.

    Args:
        path: Of the file.
        audio: Between −1 and 1.
        rate: In Hz.
        subtype: soundfile's name of the sample format: "PCM_16", "PCM_24", "FLOAT" ...

    Raises:
        ValueError: A sample would be clipped.
    """
    peak = float(np.abs(audio).max(initial=0.0))
    if not peak <= 1 and subtype not in ("FLOAT", "DOUBLE"):
        raise ValueError(
            f"write: samples must lie between -1 and 1, found {peak:g}; mix with a lower ceiling"
        )
    soundfile.write(str(path), audio, rate, subtype=subtype)


def _channels(audio: np.ndarray) -> int:
    return 1 if audio.ndim == 1 else audio.shape[-1]


def _check(name: str, audio: np.ndarray, channels: int) -> None:
    if audio.ndim not in (1, 2) or len(audio) == 0 or not 1 <= _channels(audio) <= 5:
        raise ValueError(
            f"stem {name}: audio must have shape (samples,) or (samples, channels) with 1 to 5 "
            f"channels, found {audio.shape}; put the channels last"
        )
    if _channels(audio) != channels:
        raise ValueError(
            f"stem {name}: every stem must have the channels of the first, {channels}, found "
            f"{_channels(audio)}; copy mono to both sides, or mix down, beforehand"
        )
    if not np.issubdtype(audio.dtype, np.floating) or not np.isfinite(audio).all():
        raise ValueError(
            f"stem {name}: samples must be finite floats between -1 and 1, found "
            f"{audio.dtype} or NaN; divide integers by their full scale, and fix the recording"
        )


def _ratios(
    stems: Stems, level: float, above: Mapping[str, float], ceiling: float
) -> dict[str, float]:
    unknown = sorted(set(above) - set(stems.audio))
    if unknown:
        raise ValueError(
            f"above: must name stems, found {', '.join(unknown)}; there are "
            f"{', '.join(stems.audio)}"
        )
    for name, value in {"level": level, "ceiling": ceiling, **above}.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}: must be finite, found {value:g}; give it in decibels")
    lowest = level + min(above.get(name, 0.0) for name in stems.audio)
    if lowest <= GATE:
        raise ValueError(
            f"level: every stem must be above {GATE:g} LUFS, where the meter hears silence, found "
            f"{lowest:g}; raise level or above"
        )
    return {name: 10 ** (above.get(name, 0.0) / 20) for name in stems.audio}


def _sum(stems: Stems, gains: Mapping[str, float]) -> np.ndarray:
    longest = max(len(audio) for audio in stems.audio.values())
    total = np.zeros((longest, stems.channels))
    for name, audio in stems.audio.items():
        total[: len(audio)] += gains[name] * audio.reshape(len(audio), -1)
    return total
