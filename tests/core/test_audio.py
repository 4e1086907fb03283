"""Front ends against slow references; mixing against hand values."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dsol_core import audio
from dsol_core.config import AudioConfig
from dsol_core.types import ShapeError


def slaney_hz(mel):
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))


def slow_paper_log_mel(wave):
    """The authors' front end, frame by frame and filter by filter (method document, section 4)."""
    padded = np.concatenate([np.zeros(80), wave, np.zeros(80)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(160) / 160)
    frames = [padded[i * 80 : i * 80 + 160] * window for i in range(1 + len(wave) // 80)]
    bins = np.arange(81)
    turn = np.exp(-2j * np.pi * np.outer(bins, np.arange(160)) / 160)
    magnitude = np.abs(np.stack([turn @ frame for frame in frames]))
    top = 15 + np.log(8) / np.log(6.4) * 27  # mel of 8 kHz
    edges = slaney_hz(np.linspace(0, top, 66))
    mel = np.zeros((len(frames), 64))
    for m in range(64):
        low, middle, high = edges[m : m + 3]
        for b in bins:
            hz = b * 100
            weight = max(0.0, min((hz - low) / (middle - low), (high - hz) / (high - middle)))
            mel[:, m] += magnitude[:, b] * weight * 2 / (high - low)
    decibel = 10 * np.log10(np.maximum(mel, 1e-10))
    return np.maximum(decibel, decibel.max() - 80)


def test_paper_front_end_equals_the_slow_one():
    generator = np.random.default_rng(0)
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000) + 0.01 * generator.normal(size=16000)
    wave[:4000] = 0  # reaches the 80 dB floor
    fast = audio.log_mel(torch.from_numpy(wave).float().unsqueeze(0), audio.paper_audio())
    assert fast.shape == (1, 1, 201, 64)
    np.testing.assert_allclose(fast[0, 0].numpy(), slow_paper_log_mel(wave), atol=2e-2)
    assert float(fast.max() - fast.min()) == pytest.approx(80, abs=1e-3)


def test_our_front_end_shape_and_level():
    wave = torch.randn(3, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    quiet, loud = audio.log_mel(wave, AudioConfig()), audio.log_mel(2 * wave, AudioConfig())
    assert quiet.shape == (3, 1, 101, 64)
    # Twice the amplitude is four times the power, where the floor does not matter.
    clear = quiet > math.log(1e-6) + 9
    assert clear.float().mean() > 0.3
    torch.testing.assert_close((loud - quiet)[clear], torch.full_like(loud[clear], math.log(4)), atol=1e-3, rtol=0)


def test_silence_is_the_floor():
    silent = audio.log_mel(torch.zeros(1, 1600), AudioConfig())
    torch.testing.assert_close(silent, torch.full_like(silent, math.log(1e-6)))


@pytest.mark.parametrize("shape", [(16000,), (1, 1, 16000), (2, 0)])
def test_wrong_waveform(shape):
    with pytest.raises(ShapeError, match="expected"):
        audio.log_mel(torch.zeros(shape), AudioConfig())


def test_mix_by_hand():
    parts = torch.tensor([[[0.5, -0.5], [0.2, 0.2]]])  # levels 0.5 and 0.2 become 0.1 each
    torch.testing.assert_close(audio.mix(parts, torch.tensor([[1.0, 2.0]])), torch.tensor([[0.3, 0.1]]))
    torch.testing.assert_close(audio.mix(parts, torch.tensor([[1.0, 0.0]])), torch.tensor([[0.1, -0.1]]))


def test_the_level_of_a_part_is_that_of_its_own_samples():
    """A quiet neighbour stays as quiet beside them as it was."""
    parts = torch.tensor([[[0.001, -0.001, 0.5, -0.5], [0.4, 0.4, 0.2, 0.2]]])
    mixed = audio.mix(parts, torch.tensor([[1.0, 2.0]]), slice(2, 4))
    torch.testing.assert_close(mixed, torch.tensor([[0.4002, 0.3998, 0.3, 0.1]]))


def test_mix_does_not_clip_and_leaves_silence():
    mixed = audio.mix(torch.tensor([[[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]]]), torch.tensor([[40.0, 1.0]]))
    torch.testing.assert_close(mixed, torch.tensor([[1.0, -1.0, 1.0, -1.0]]))
    assert audio.mix(torch.zeros(1, 2, 8), torch.ones(1, 2)).abs().max() == 0
    with pytest.raises(ShapeError, match=r"\(1, 3\)"):
        audio.mix(torch.zeros(1, 2, 8), torch.ones(1, 3))


@pytest.mark.parametrize("cfg", [AudioConfig(), audio.paper_audio()])
def test_mix_log_mels_adds_power_of_sounds_at_one_level(cfg):
    """Against the logarithms of summed powers: means 2 and 8 meet at 4, between them; means 2 and 2 stay."""
    cfg = replace(cfg, mel_bins=1)
    first = torch.tensor([[1.0, 3.0], [1.0, 3.0]]).view(2, 1, 2, 1)
    second = torch.tensor([[12.0, 4.0], [3.0, 1.0]]).view(2, 1, 2, 1)
    logs = (lambda p: p.log()) if cfg.log == "natural" else (lambda p: 10 * p.sqrt().log10())
    moved = torch.tensor([2.0, 1.0]).view(2, 1, 1, 1)
    mixed = audio.mix_log_mels(logs(first), logs(second), torch.zeros(2), cfg)
    torch.testing.assert_close(mixed, logs(first * moved + second / moved))
    louder = audio.mix_log_mels(logs(first), logs(second), torch.tensor([2.0, 2.0]), cfg)
    torch.testing.assert_close(louder, logs(first * moved * math.e + second / moved / math.e))


@pytest.mark.parametrize("cfg", [AudioConfig(), audio.paper_audio()])
def test_silence_is_mixed_as_it_is(cfg):
    wave = 0.1 * torch.randn(1, 1600, generator=torch.Generator().manual_seed(0))
    sound, nothing = audio.log_mel(wave, cfg), audio.log_mel(torch.zeros(1, 1600), cfg)
    assert (audio.mix_log_mels(sound, nothing, torch.zeros(1), cfg) - sound).abs().mean() < 0.05
    torch.testing.assert_close(audio.mix_waveforms(wave, 0 * wave, torch.zeros(1)), wave)
    assert torch.isfinite(audio.mix_log_mels(nothing, nothing, torch.ones(1), cfg)).all()


def test_mix_log_mels_is_close_to_mixing_waveforms():
    generator = torch.Generator().manual_seed(1)
    time = torch.arange(16000) / 16000
    first = torch.sin(2 * math.pi * 440 * time) * 0.1 + 0.001 * torch.randn(16000, generator=generator)
    second = torch.sin(2 * math.pi * 2500 * time) * 0.1 + 0.001 * torch.randn(16000, generator=generator)
    logs = [audio.log_mel(wave.unsqueeze(0), AudioConfig()) for wave in (first, second, first + second)]
    mixed = audio.mix_log_mels(logs[0], logs[1], torch.zeros(1), AudioConfig())
    assert (mixed - logs[2]).abs().mean() < 0.35
    with pytest.raises(ShapeError):
        audio.mix_log_mels(logs[0], logs[1], torch.zeros(2), AudioConfig())


@pytest.mark.parametrize("cfg", [AudioConfig(), audio.paper_audio()])
def test_the_level_of_a_sound_is_that_of_its_waveform(cfg):
    """A low and a high tone of one amplitude are mixed as they are, though a low one fills narrower filters."""
    time = torch.arange(16000) / 16000
    low, high = (0.1 * torch.sin(2 * math.pi * hertz * time)[None] for hertz in (300.0, 5000.0))
    logs = [audio.log_mel(wave, cfg) for wave in (low, 4 * high)]
    unit = (1.0 if cfg.log == "natural" else 10 / math.log(10)) * cfg.power / 2
    mixed, apart = audio.mix_log_mels(*logs, torch.zeros(1), cfg) / unit, [one / unit for one in logs]
    moved = [float(mixed.amax((2, 3))[0, 0] - one.amax()) for one in apart]
    lowest = float((mixed - apart[0])[..., apart[0].mean((0, 1, 2)).argmax()].mean())
    assert lowest == pytest.approx(math.log(4), abs=0.35), moved  # half of ln 16 up, the other as much down


def test_mix_waveforms_by_hand_and_at_the_levels_of_mix_log_mels():
    first, second = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.5]])
    mixed = audio.mix_waveforms(first, second, torch.tensor([math.log(4.0)]))
    torch.testing.assert_close(mixed, torch.tensor([[math.sqrt(2), 1 / math.sqrt(2)]]))  # both at 1, 4 times the power
    generator = torch.Generator().manual_seed(1)
    waves = 0.1 * torch.randn(2, 1, 16000, generator=generator) * torch.tensor([1.0, 8.0]).view(2, 1, 1)
    gain = torch.tensor([1.3])
    logs = [audio.log_mel(wave, AudioConfig()) for wave in (*waves, audio.mix_waveforms(*waves, gain))]
    apart = audio.mix_log_mels(logs[0], logs[1], gain, AudioConfig()).exp().mean()
    assert logs[2].exp().mean() == pytest.approx(float(apart), rel=0.02)  # phases are independent
    with pytest.raises(ShapeError, match=r"\[N, S\] twice"):
        audio.mix_waveforms(first, second[:, :1], gain)
