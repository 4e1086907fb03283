"""Ten-second clips as a video site serves them: 640x360, 25 frames a second, H.264 and AAC."""

from __future__ import annotations

import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SECONDS, RATE, SIZE = 10, 25, (640, 360)
QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error", "-y")


def make(folder: Path, count: int, *, distinct: int, threads: int, size: tuple[int, int] = SIZE) -> list[Path]:
    """Write `count` clips, of which `distinct` are encoded and the others copies whose bytes differ in a free box.

    The picture zooms into a fractal under film grain, so that every frame moves everywhere; the sound is stereo noise
    and a tone. Rates are those of 360p on the web: 500 kbit/s picture, 128 kbit/s sound.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = [folder / f"source{number}.mp4" for number in range(distinct)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_encode, sources, range(distinct), [size] * distinct))
    clips = []
    for number in range(count):
        clips.append(folder / f"clip{number:05d}.mp4")
        free_box = struct.pack(">I4sQ", 16, b"free", number)  # players and ffmpeg skip it
        clips[-1].write_bytes(sources[number % distinct].read_bytes() + free_box)
    for source in sources:
        source.unlink()
    return clips


def _encode(path: Path, number: int, size: tuple[int, int]) -> None:
    from tasks.adapters import media

    width, height = size
    zoom = f"mandelbrot=s={width}x{height}:r={RATE}:start_x={-0.7436 - 0.002 * number}:start_scale={2.0 / (1 + number)}"
    tone = f"sine=f={220 * (1 + number)}:r=44100,volume=0.3[tone];anoisesrc=c=pink:a=0.2:r=44100:seed={number}[noise]"
    words = ["-f", "lavfi", "-i", f"{zoom},noise=alls=6:allf=t:all_seed={number}"]
    words += ["-f", "lavfi", "-i", f"{tone};[tone][noise]amerge=inputs=2"]
    words += ["-t", str(SECONDS), "-c:v", "libx264", "-preset", "medium", "-b:v", "500k", "-pix_fmt", "yuv420p"]
    words += ["-threads", "1", "-c:a", "aac", "-b:a", "128k", "-movflags", "+faststart", str(path)]
    subprocess.run([media.binary(), *QUIET, *words], check=True)
