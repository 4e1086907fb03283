"""Sound: waveform -> log-mel spectrogram, and mixing, both of waveforms and of log-mels."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from dsol_core.config import AudioConfig
from dsol_core.types import ShapeError

LEVEL = 0.1  # RMS that each part of a mixture is brought to, full scale = 1 (as Mix-and-Localize; not official)
ALL = slice(None)


def paper_audio() -> AudioConfig:
    """Return the authors' front end: 201 x 64 decibels of the magnitude on a Slaney mel scale, not standardised."""
    return AudioConfig(
        n_fft=160,
        window=160,
        hop=80,
        low_hz=0.0,
        mel_scale="slaney",
        power=1.0,
        log="decibel",
        floor=1e-10,
        dynamic_range_db=80.0,
        standardise=False,
    )


@lru_cache(maxsize=8)
def _front(cfg: AudioConfig) -> tuple[Tensor, Tensor]:
    """Return the window [n_fft], with zeros around it, and the mel filters [n_fft // 2 + 1, M], on the CPU."""
    edge = cfg.n_fft - cfg.window
    return F.pad(torch.hann_window(cfg.window), (edge // 2, edge - edge // 2)), _filters(cfg, "slaney")


def _filters(cfg: AudioConfig, norm: str | None) -> Tensor:
    with warnings.catch_warnings():
        # The authors' 100-Hz bins leave 2 of the 64 filters empty; that is their front end, not a fault of the input.
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
        filters: Tensor = torchaudio.functional.melscale_fbanks(
            cfg.n_fft // 2 + 1,
            cfg.low_hz,
            cfg.high_hz,
            cfg.mel_bins,
            cfg.sample_rate_hz,
            norm=norm,
            mel_scale=cfg.mel_scale,
        )
    return filters


@lru_cache(maxsize=8)
def _widths(cfg: AudioConfig) -> Tensor:
    """Return the share of the spectrum that each mel filter stands for, its weight in a sound's power: [M], CPU."""
    widths = _filters(cfg, None).sum(0) / _filters(cfg, "slaney").sum(0).clamp_min(1e-12)
    return widths / widths.sum()


def log_mel(waveform: Tensor, cfg: AudioConfig) -> Tensor:
    """Turn sound into a log-mel spectrogram, not standardised (the networks do that with their own buffers).

    Args:
        waveform: [B, S] float, mono in [-1, 1] at `cfg.sample_rate_hz`.
        cfg: the front end.

    Returns:
        [B, 1, T, M] float32 with T = 1 + S // hop: natural logarithm of the power, or decibels.

    Raises:
        ShapeError: the waveform is not [B, S] or has no samples.
    """
    if waveform.ndim != 2 or waveform.shape[1] == 0:
        raise ShapeError(f"waveform has shape {tuple(waveform.shape)}; expected [B, S] with S > 0: stack mono clips")
    window, filters = (one.to(waveform.device) for one in _front(cfg))
    padded = F.pad(waveform.float(), (cfg.n_fft // 2, cfg.n_fft // 2))
    spectrum = torch.fft.rfft(padded.unfold(1, cfg.n_fft, cfg.hop) * window)
    power = (spectrum * spectrum.conj()).real
    magnitude = power if cfg.power == 2 else power.pow(cfg.power / 2)
    energy = (magnitude @ filters).unsqueeze(1)
    if cfg.log == "natural":
        return torch.log(energy + cfg.floor)
    decibel = 10 * torch.log10(energy.clamp_min(cfg.floor))
    if cfg.dynamic_range_db is not None:
        decibel = torch.maximum(decibel, decibel.amax((1, 2, 3), keepdim=True) - cfg.dynamic_range_db)
    return decibel


def mix(waveforms: Tensor, gains: Tensor, own: slice = ALL) -> Tensor:
    """Mix the parts of scenes: each part is brought to the same level, gained and summed; peaks above 1 scale it down.

    Args:
        waveforms: [B, P, S] float; silent parts stay silent.
        gains: [B, P] float; 0 leaves a part out.
        own: samples whose level counts; the others are changed with them.

    Returns:
        [B, S] float in [-1, 1].

    Raises:
        ShapeError: the two differ in B or P.
    """
    if waveforms.ndim != 3 or waveforms.shape[:2] != gains.shape:
        raise ShapeError(
            f"waveforms {tuple(waveforms.shape)} and gains {tuple(gains.shape)} do not fit; expected [B, P, S], [B, P]"
        )
    loudness = waveforms[:, :, own].pow(2).mean(2).sqrt()
    factor = torch.where(loudness > 1e-6, gains * LEVEL / loudness.clamp_min(1e-6), torch.zeros_like(loudness))
    total = (waveforms * factor.unsqueeze(2)).sum(1)
    return total / total.abs().amax(1, keepdim=True).clamp_min(1.0)


def mix_waveforms(first: Tensor, second: Tensor, gain: Tensor) -> Tensor:
    """Mix two sounds as `mix_log_mels` does, from their waveforms: with the phases that they have.

    Args:
        first: [N, S] float.
        second: the same shape.
        gain: [N] float, level of the first above the second in the mixture, natural-log units of power (1 is 4.3 dB).

    Returns:
        [N, S]; not limited to [-1, 1].

    Raises:
        ShapeError: the shapes differ.
    """
    if first.ndim != 2 or first.shape != second.shape or gain.shape != first.shape[:1]:
        raise ShapeError(
            f"waveforms {tuple(first.shape)}, {tuple(second.shape)} and gain {tuple(gain.shape)} do not fit; expected "
            "the same shape [N, S] twice and [N]"
        )
    power = [one.pow(2).mean(1) for one in (first, second)]
    half = _added(power[0].log(), power[1].log(), gain, math.log(1e-12)).view(-1, 1) / 4  # of the amplitude's logarithm
    return first * half.exp() + second * (-half).exp()


def mix_log_mels(first: Tensor, second: Tensor, gain: Tensor, cfg: AudioConfig) -> Tensor:
    """Mix two sounds from their log-mels: powers add, phases are taken as independent.

    Both are brought to one level, that between theirs, before the gain: recordings differ by far more than the parts of
    a scene, which `mix` brings to one level too. A silent one stays silent.

    Args:
        first: [N, 1, T, M] as `log_mel` makes them.
        second: the same shape.
        gain: [N] float, level of the first above the second in the mixture, natural-log units of power (1 is 4.3 dB).
        cfg: the front end that made them.

    Returns:
        [N, 1, T, M], in the unit of the inputs.

    Raises:
        ShapeError: the shapes differ.
    """
    if first.shape != second.shape or gain.shape != first.shape[:1] or first.shape[-1] != cfg.mel_bins:
        raise ShapeError(
            f"log-mels {tuple(first.shape)}, {tuple(second.shape)} and gain {tuple(gain.shape)} do not fit; "
            f"expected the same shape [N, 1, T, {cfg.mel_bins}] twice and [N]"
        )
    unit = 1.0 if cfg.log == "natural" else 10 / math.log(10)  # of the logarithm
    unit *= cfg.power / 2  # magnitude or power inside it
    first, second = first / unit, second / unit  # logarithms of the power
    share = _widths(cfg).log().to(first.device)
    levels = [(one + share).logsumexp((1, 2, 3)) - math.log(one.shape[2]) for one in (first, second)]
    half = _added(levels[0], levels[1], gain, math.log(2 * cfg.floor) * 2 / cfg.power).view(-1, 1, 1, 1) / 2
    return unit * torch.logaddexp(first + half, second - half)


def _added(first: Tensor, second: Tensor, gain: Tensor, silence: float) -> Tensor:
    """Return what makes the first `gain` louder than the second, from levels [N] (natural logarithms of the power)."""
    heard = (first > silence) & (second > silence)
    return torch.where(heard, gain - first + second, gain)
