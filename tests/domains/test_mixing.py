"""Mixing: loudness by pyloudnorm after the gain, the sum's expected loudness, peaks and files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyloudnorm
import pytest
import soundfile

from gaba.domains import mixing
from gaba.domains.mixing import Stems, loudness, mix, read, true_peak, write

RATE = 22050


def noise(scale: float, seed: int, *, seconds: float = 2, channels: int = 2) -> np.ndarray:
    random = np.random.default_rng(seed)
    return scale * random.normal(size=(round(seconds * RATE), channels))


def measured(audio: np.ndarray, rate: int = RATE) -> float:
    """LUFS by pyloudnorm alone."""
    return float(pyloudnorm.Meter(rate).integrated_loudness(audio))


@pytest.fixture(scope="module")
def band() -> Stems:
    """Levels 60 LU apart, one with quiet passages below the gate of the meter."""
    fading = noise(0.002, 3) * np.repeat([1.0, 0.1, 1.0, 0.1], RATE // 2)[:, None]
    return Stems({"loud": noise(0.3, 0), "soft": noise(3e-4, 1), "fading": fading}, RATE)


@pytest.mark.parametrize("level", [-16.0, -23.0, -40.0])
def test_every_stem_has_the_level_behind_its_fader(band: Stems, level: float) -> None:
    made = mix(band, level=level, ceiling=0)
    for name, audio in band.audio.items():
        assert measured(made.gains[name] * audio) - made.guard == pytest.approx(level, abs=0.1)
        assert made.before[name] == pytest.approx(measured(audio))


@pytest.mark.parametrize("n_stems", [1, 2, 5, 10])
def test_the_mix_has_the_loudness_of_independent_stems(n_stems: int) -> None:
    stems = Stems({str(k): noise(0.1 ** (1 + k % 3), k) for k in range(n_stems)}, RATE)
    made = mix(stems, ceiling=20)
    assert made.guard == 0
    assert measured(made.audio) == pytest.approx(-23 + 10 * math.log10(n_stems), abs=0.1)


def test_wanted_proportions_are_kept_and_add_up(band: Stems) -> None:
    above = {"loud": -6.0, "fading": 4.0}
    made = mix(band, above=above, level=-30)
    for name, audio in band.audio.items():
        assert measured(made.gains[name] * audio) == pytest.approx(
            -30 + above.get(name, 0.0), abs=0.1
        )
    powers = [10 ** (above.get(name, 0.0) / 10) for name in ("loud", "soft")]
    two = mix(
        Stems({name: band.audio[name] for name in ("loud", "soft")}, RATE),
        above={"loud": -6.0},
        level=-30,
    )
    assert measured(two.audio) == pytest.approx(-30 + 10 * math.log10(sum(powers)), abs=0.1)


def test_the_order_and_the_recorded_level_make_no_difference(band: Stems) -> None:
    made = mix(band)
    turned = Stems({name: 1.5 * band.audio[name] for name in reversed(list(band.audio))}, RATE)
    np.testing.assert_allclose(mix(turned).audio, made.audio, atol=2e-4)


# --- silence -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1e-6])
def test_a_silent_stem_is_named_and_counts_for_nothing(band: Stems, scale: float) -> None:
    more = Stems({**band.audio, "muted": noise(scale, 9)}, RATE)
    made, without = mix(more), mix(band)
    assert made.silent == ("muted",)
    assert made.before["muted"] == -math.inf
    assert made.gains["muted"] == pytest.approx(10 ** (made.guard / 20))
    np.testing.assert_allclose(made.audio, without.audio, atol=1e-4)


def test_silence_alone_is_mixed_to_silence() -> None:
    made = mix(Stems({"a": np.zeros((RATE, 1)), "b": np.zeros(RATE)}, RATE))
    assert made.silent == ("a", "b")
    assert made.guard == 0
    assert not made.audio.any()
    assert true_peak(made.audio) == -math.inf


@pytest.mark.parametrize("samples", [1, 100, round(0.39 * RATE)])
def test_a_stem_shorter_than_a_block_of_the_meter_is_measured(samples: int) -> None:
    short = noise(0.5, 0)[:samples]
    block = np.zeros((math.ceil(0.4 * RATE), 2))
    block[:samples] = short
    assert loudness(short, RATE) == pytest.approx(measured(block))


def test_a_shorter_stem_is_followed_by_silence() -> None:
    made = mix(Stems({"a": noise(0.1, 0), "b": noise(0.1, 1, seconds=1)}, RATE))
    alone = mix(Stems({"a": noise(0.1, 0)}, RATE))
    np.testing.assert_allclose(made.audio[RATE:], alone.audio[RATE:], rtol=1e-12)


# --- the true-peak guard -------------------------------------------------------------------------


def test_the_true_peak_of_sines_is_their_amplitude() -> None:
    time = np.arange(RATE) / RATE
    for part in (0.03, 0.25, 0.4):
        phases = np.linspace(0, 1, 7)
        sines = np.sin(2 * np.pi * (part * RATE * time[:, None] + phases))
        rising = np.minimum(1, 20 * np.minimum(time, time[::-1]))[:, None]
        assert true_peak(0.5 * rising * sines) == pytest.approx(20 * math.log10(0.5), abs=0.3)


def test_the_guard_turns_the_whole_mix_down() -> None:
    clicks = np.zeros((2 * RATE, 1))
    clicks[:: RATE // 4] = 1
    stems = Stems({"clicks": clicks, "noise": noise(0.1, 0, channels=1)}, RATE)
    made, free = mix(stems, ceiling=-6), mix(stems, ceiling=60)
    assert free.guard == 0 > made.guard
    assert true_peak(made.audio) == pytest.approx(-6, abs=1e-9)
    np.testing.assert_allclose(made.audio, 10 ** (made.guard / 20) * free.audio, rtol=1e-9)
    levels = [measured(made.gains[name] * audio) for name, audio in stems.audio.items()]
    assert levels == pytest.approx([-23 + made.guard] * 2, abs=0.1)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_files_keep_rate_channels_and_samples(tmp_path: Path, rate: int, channels: int) -> None:
    audio = noise(0.05, 0, channels=channels)
    write(tmp_path / "a.wav", audio, rate)
    stems = read({"a": tmp_path / "a.wav"})
    assert (stems.rate, stems.channels) == (rate, channels)
    np.testing.assert_allclose(stems.audio["a"], audio, atol=2.0**-23)
    made = mix(stems, level=-30)
    write(tmp_path / "mix.wav", made.audio, made.rate, "PCM_16")
    info = soundfile.info(str(tmp_path / "mix.wav"))
    assert (info.samplerate, info.channels, info.subtype) == (rate, channels, "PCM_16")
    assert info.frames == len(audio)


def test_files_of_two_rates_are_refused(tmp_path: Path) -> None:
    for rate in (44100, 48000):
        write(tmp_path / f"{rate}.wav", noise(0.1, 0), rate)
    with pytest.raises(ValueError, match=r"one sample rate, found a 44100 Hz, b 48000 Hz"):
        read({"a": tmp_path / "44100.wav", "b": tmp_path / "48000.wav"})


def test_samples_that_would_be_clipped_are_not_written(tmp_path: Path) -> None:
    for wrong in (1.5, np.nan):
        with pytest.raises(ValueError, match=r"must lie between -1 and 1, found (1.5|nan)"):
            write(tmp_path / "loud.wav", np.full((10, 1), wrong), RATE)
    assert not list(tmp_path.iterdir())
    write(tmp_path / "loud.wav", np.full((10, 1), 1.5), RATE, "FLOAT")
    assert read({"a": tmp_path / "loud.wav"}).audio["a"].max() == 1.5


def test_a_file_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(soundfile.LibsndfileError, match=r"none\.wav"):
        read({"a": tmp_path / "none.wav"})


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ({}, r"there must be at least one"),
        ({"a": np.zeros((0, 2))}, r"stem a: audio must have shape .* found \(0, 2\)"),
        ({"a": np.zeros((9, 6))}, r"stem a: .*1 to 5 channels, found \(9, 6\)"),
        ({"a": np.zeros((9, 2)), "b": np.zeros((9, 1))}, r"stem b: .*channels of the first, 2"),
        ({"a": np.full((9, 2), np.nan)}, r"stem a: samples must be finite floats"),
        ({"a": np.full((9, 2), np.inf)}, r"stem a: samples must be finite floats"),
        ({"a": np.zeros((9, 2), np.int16)}, r"stem a: .* found int16"),
    ],
)
def test_bad_stems_are_refused_by_name(audio: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Stems(audio, RATE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"above": {"horn": 3.0}}, r"above: must name stems, found horn; there are loud, soft"),
        ({"above": {"loud": math.nan}}, r"loud: must be finite, found nan"),
        ({"level": math.inf}, r"level: must be finite"),
        ({"ceiling": math.nan}, r"ceiling: must be finite"),
        ({"level": -70.0}, r"level: every stem must be above -70 LUFS"),
        ({"above": {"soft": -50.0}}, r"found -73"),
    ],
)
def test_wrong_settings_of_a_mix(band: Stems, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mix(band, **settings)


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the rate must be positive, found 0"):
        Stems({"a": np.zeros(9)}, 0)
    assert mixing.GATE == -70
