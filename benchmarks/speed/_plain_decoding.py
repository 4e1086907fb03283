"""Videos -> training files in the plain way of the literature: every frame a JPEG, every second of sound a pickle.

Written from the description in the project's method notes: OpenCV reads all frames and writes each as a JPEG into a
folder of its second, the sound is loaded and resampled to 16 kHz mono as a whole and pickled second by second. Where
librosa is missing, scipy's polyphase filter resamples.
"""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import wave
from math import gcd
from pathlib import Path

import cv2
import numpy as np

RATE_HZ = 16000


def resampler() -> str:
    """Return what resamples the sound here: "librosa" or "scipy"."""
    return "librosa" if importlib.util.find_spec("librosa") else "scipy"


def convert(video: Path, folder: Path) -> int:
    """Write the frames and seconds of a video and return how many files."""
    return _frames(video, folder / video.stem) + _sound(video, folder / video.stem)


def _frames(video: Path, folder: Path) -> int:
    capture = cv2.VideoCapture(str(video))
    rate = round(capture.get(cv2.CAP_PROP_FPS))
    count = 0
    while True:
        good, frame = capture.read()
        if not good:
            capture.release()
            return count
        cv2.imwrite(str(_second(folder, count // rate) / f"{count:05d}.jpg"), frame)
        count += 1


def _sound(video: Path, folder: Path) -> int:
    from tasks.adapters import media

    full = folder / "sound.wav"
    words = ["-hide_banner", "-nostdin", "-loglevel", "error", "-y", "-i", str(video), "-vn", str(full)]
    subprocess.run([media.binary(), *words], check=True)
    sound = _load(full)
    full.unlink()
    seconds = len(sound) // RATE_HZ
    for second in range(seconds):
        with (_second(folder, second) / "audio.pkl").open("wb") as file:
            pickle.dump(sound[second * RATE_HZ : (second + 1) * RATE_HZ], file)
    return seconds


def _load(path: Path) -> np.ndarray:
    if resampler() == "librosa":
        import librosa

        return np.asarray(librosa.load(path, sr=RATE_HZ, mono=True)[0])
    from scipy.signal import resample_poly

    with wave.open(str(path)) as file:
        rate, channels = file.getframerate(), file.getnchannels()
        data = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    mono = data.reshape(-1, channels).astype(np.float32).mean(1) / 32768
    return np.asarray(resample_poly(mono, RATE_HZ // gcd(RATE_HZ, rate), rate // gcd(RATE_HZ, rate)))


def _second(folder: Path, second: int) -> Path:
    place = folder / f"{second:04d}"
    place.mkdir(parents=True, exist_ok=True)
    return place
