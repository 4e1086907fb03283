"""Every layout in which people keep benchmark media, with real files; what is missing says why."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dsol_core.protocols import Picture, Sound
from dsol_core.types import UsageError
from tasks.adapters import images
from tasks.adapters.media_layouts import Library, Missing, Place, Span, span_of
from tasks.adapters.media_reading import read_picture, read_sound, read_spectrogram
from tests.tasks.conftest import Film

ID = "AbC-_123xyZ"
CHIRP = "aevalsrc=0.5*sin(2*PI*(100*t+50*t*t)):d={seconds}:s=16000"  # frequency in hertz = 100 (1 + t)


@pytest.fixture(scope="module")
def clip(film: Film) -> Path:
    """A clip of 10 s at 10 frames a second: grey level of frame N is 16 + 2 * N, of the second t 16 + 20 * t."""
    return film("layout-clip.mp4", rate="10", seconds=10, sound=CHIRP)


@pytest.fixture(scope="module")
def whole(film: Film) -> Path:
    """A video of 50 s at 2 frames a second: grey level 16 + 4 * t."""
    return film("layout-whole.mp4", rate="2", seconds=50, sound=CHIRP)


def put(root: Path, name: str, source: Path) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)


def grey(place: Place | Missing) -> float:
    assert isinstance(place, Place), place
    frame = read_picture(place)
    assert not isinstance(frame, Missing), frame
    return 16 + float(frame.mean()) * 219 / 255  # the film's own scale


def pitch(sound: np.ndarray | Missing, rate: int = 16000) -> float:
    """Return the frequency in the middle of a sound, in hertz."""
    assert not isinstance(sound, Missing), sound
    middle = sound[len(sound) // 2 - rate // 20 : len(sound) // 2 + rate // 20]
    return float(np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 16)).argmax() * rate / (1 << 16))


@pytest.mark.parametrize(
    ("stem", "span"),
    [
        (ID, Span(ID)),
        (f"A song [{ID}]", Span(ID)),
        (f"{ID}_000030", Span(ID, 30, 40)),
        (f"{ID}_30", Span(ID, 30, 40)),
        (f"{ID}_30000_40000", Span(ID, 30, 40)),
        (f"{ID}_30_40", Span(ID, 30, 40)),
        (f"{ID}_30.000_40.000", Span(ID, 30, 40)),
        (f"{ID}_0_10000", Span(ID, 0, 10)),
        (f"{ID}_0_1000", Span(ID, 0)),
        (f"{ID}_003_00097", Span(ID, 0)),
        ("sample0001", None),
        ("3908875350", None),
        ("holiday video", None),
    ],
)
def test_names(stem: str, span: Span | None) -> None:
    assert span_of(stem) == span


@pytest.mark.parametrize(
    "name",
    [
        f"{ID}_000030.mp4",
        f"deep/er/{ID}_30000_40000.mp4",
        f"playing cello/{ID}_000030.mp4",
        f"test/{ID}_30_40.MP4",
        f"{ID}.mp4",
    ],
)
def test_a_vggsound_clip_in_every_naming(tmp_path: Path, clip: Path, name: str) -> None:
    """Second 5 of the clip, whether or not the file's name says where the clip starts."""
    put(tmp_path, name, clip)
    library = Library(tmp_path)
    assert grey(library.picture(Picture(f"{ID}_000030", 5.0))) == pytest.approx(16 + 100, abs=1.5)
    place = library.sound(Sound(f"{ID}_000030", 5.0, 3.0))
    assert isinstance(place, Place)
    sound = read_sound(place, 3.0, 16000)
    assert not isinstance(sound, Missing) and sound.shape == (48000,) and sound.dtype == np.float32
    assert pitch(sound) == pytest.approx(600, abs=15)


@pytest.mark.parametrize("name", [f"{ID}.mp4", f"a/b/Some title [{ID}].mkv", f"{ID}_0_1000.mp4"])
def test_a_whole_video(tmp_path: Path, whole: Path, name: str) -> None:
    """The clip that starts at 30 s: its second 5 is the video's second 35; a frame of MUSIC is counted from 0."""
    put(tmp_path, name, whole)
    library = Library(tmp_path)
    assert grey(library.picture(Picture(f"{ID}_000030", 5.0))) == pytest.approx(16 + 4 * 35, abs=1.5)
    assert grey(library.picture(Picture(f"{ID}_0_1000", 12.25))) == pytest.approx(16 + 4 * 12.25, abs=2.5)
    assert grey(library.picture(Picture(ID, 3.0))) == pytest.approx(16 + 12, abs=1.5)
    place = library.sound(Sound(f"{ID}_000030", 5.0, 3.0))
    assert isinstance(place, Place)
    assert pitch(read_sound(place, 3.0, 16000)) == pytest.approx(3600, abs=15)


def test_another_clip_of_the_video_that_holds_the_second(tmp_path: Path, clip: Path) -> None:
    put(tmp_path, f"{ID}_000030.mp4", clip)
    library = Library(tmp_path)
    assert grey(library.picture(Picture(ID, 35.0))) == pytest.approx(116, abs=1.5)
    assert library.picture(Picture(ID, 45.0)) == Missing("no file")
    assert library.picture(Picture(f"{ID}_000020", 5.0)) == Missing("no file")


def test_a_clip_from_0_is_not_the_whole_video(tmp_path: Path, clip: Path, whole: Path) -> None:
    put(tmp_path, f"{ID}_000000.mp4", clip)
    put(tmp_path, f"{ID}.mp4", whole)
    assert grey(Library(tmp_path).picture(Picture(f"{ID}_0_1000", 20.0))) == pytest.approx(16 + 80, abs=1.5)


def prepared(root: Path, name: str, level: int) -> None:
    (root / "frames").mkdir(parents=True, exist_ok=True)
    ending = Path(name).suffix
    frame = np.full((24, 32, 3), level, np.uint8)
    path = root / "frames" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(images.encode_png(frame) if ending == ".png" else images.encode_jpeg(frame, 95))


def tone(root: Path, name: str, ffmpeg_run: Callable[..., None], seconds: float = 4, rate: int = 44100) -> None:
    (root / "audio").mkdir(parents=True, exist_ok=True)
    source = CHIRP.format(seconds=seconds).replace("16000", str(rate))
    ffmpeg_run("-f", "lavfi", "-i", source, "-ac", "2", root / "audio" / name)


@pytest.mark.parametrize(
    ("name", "second"),
    [
        (f"{ID}_000030", None),
        (f"{ID}_000030", 5.0),
        ("3908875350", None),
        ("39088753501", None),  # eleven digits, as a YouTube id could be
        ("sample0001", None),
        ("sample0001", 5.0),
    ],
)
def test_prepared_frames_and_sounds(
    tmp_path: Path, ffmpeg_run: Callable[..., None], name: str, second: float | None
) -> None:
    """EZ-VSL's, Flickr's and VGGSound-Instruments' folders; the frame is preferred to a video's."""
    prepared(tmp_path, f"{name}.jpg", 120)
    (tmp_path / "masks").mkdir()
    shutil.copy(tmp_path / "frames" / f"{name}.jpg", tmp_path / "masks" / f"{name}.jpg")
    tone(tmp_path, f"{name}.wav", ffmpeg_run)
    library = Library(tmp_path)
    picture = library.picture(Picture(name, second), "some key")
    assert isinstance(picture, Place) and picture.path.parent.name == "frames"
    frame = read_picture(picture)
    assert not isinstance(frame, Missing) and frame.shape == (24, 32, 3) and abs(int(frame[0, 0, 0]) - 120) < 3
    place = library.sound(Sound(name, None, 3.0))
    assert isinstance(place, Place)
    assert pitch(read_sound(place, 3.0, 16000)) == pytest.approx(300, abs=15)  # the middle of 4 s
    assert library.counts == {"picture": 1, "sound": 1, "video": 0, "spectrogram": 0}


def test_frames_of_avgn_and_one_sound_a_video(tmp_path: Path, ffmpeg_run: Callable[..., None]) -> None:
    for number, level in ((97, 100), (307, 200)):
        prepared(tmp_path, f"{ID}_{number // 30:03d}_{number:05d}.jpg", level)
    tone(tmp_path, f"{ID}.wav", ffmpeg_run, seconds=14, rate=16000)
    library = Library(tmp_path)
    key = f"{ID}_010_00307"
    picture = library.picture(Picture(ID, 307 / 30), key)
    assert isinstance(picture, Place) and picture.path.name == f"{key}.jpg"
    near, middle = (library.sound(Sound(ID, at, 3.0)) for at in (307 / 30, None))
    assert isinstance(near, Place) and isinstance(middle, Place)
    assert pitch(read_sound(near, 1.0, 16000)) == pytest.approx(100 * (1 + 307 / 30), abs=15)
    assert pitch(read_sound(middle, 1.0, 16000)) == pytest.approx(800, abs=15)
    assert library.picture(Picture(ID, 1.0), f"{ID}_001_00030") == Missing("no file")


def test_frames_of_dsol_under_their_key(tmp_path: Path) -> None:
    for video, level in ((ID, 60), ("B" * 11, 90)):
        prepared(tmp_path, f"{video}_0_1000/frame_012/00367.jpg", level)
    key = f"{ID}_0_1000/frame_012/00367.jpg"
    place = Library(tmp_path).picture(Picture(f"{ID}_0_1000", 367 / 30), key)
    assert isinstance(place, Place) and place.path.as_posix().endswith(f"frames/{key}")


def test_clips_of_audioset_whose_start_nobody_tells(tmp_path: Path, clip: Path, whole: Path) -> None:
    put(tmp_path, f"{ID}_30000_40000.mp4", clip)
    put(tmp_path, f"{'B' * 11}.mp4", clip)
    put(tmp_path, f"{'C' * 11}.mp4", whole)
    library = Library(tmp_path)
    for video in (ID, "B" * 11):
        assert grey(library.picture(Picture(video, 4.0), f"{video}/4", clips=True)) == pytest.approx(96, abs=1.5)
    place = library.picture(Picture("C" * 11, 4.0), clips=True)
    assert isinstance(place, Place)
    found = read_picture(place)
    assert isinstance(found, Missing) and found.cause == "start unknown"


def test_the_three_folders_of_music_synthetic(tmp_path: Path, ffmpeg_run: Callable[..., None]) -> None:
    for part in ("test1", "train/train"):
        for folder in ("audio", "video", "box"):
            (tmp_path / part / folder).mkdir(parents=True)
        frame = np.full((16, 16, 3), 40 if part == "test1" else 80, np.uint8)
        (tmp_path / part / "video" / "0001.jpg").write_bytes(images.encode_jpeg(frame, 95))
        with (tmp_path / part / "audio" / "0001.pkl").open("wb") as file:
            pickle.dump(np.zeros((201, 64), np.float32), file)
        np.save(tmp_path / part / "box" / "0001.npy", np.array([[0.1, 0.1, 0.3, 0.3, 1]]))
    library = Library(tmp_path)
    place = library.picture(Picture("0001"))
    assert isinstance(place, Place) and place.path.parts[-3:] == ("test1", "video", "0001.jpg")
    found = library.sound(Sound("0001", None, None))
    assert isinstance(found, Place) and found.kind == "spectrogram" and "test1" in found.path.parts
    spectrogram = read_spectrogram(found)
    assert not isinstance(spectrogram, Missing) and spectrogram.shape == (201, 64)
    found.path.write_bytes(pickle.dumps(len))
    refused = read_spectrogram(found)
    assert isinstance(refused, Missing) and "builtins.len" in refused.detail
    tone(tmp_path, "0001.wav", ffmpeg_run)
    waveform = Library(tmp_path).sound(Sound("0001", None, None))
    assert isinstance(waveform, Place) and waveform.kind == "sound"


def test_one_name_twice_is_ambiguous_unless_the_files_are_equal(tmp_path: Path, clip: Path, whole: Path) -> None:
    put(tmp_path, f"a/{ID}_000030.mp4", clip)
    put(tmp_path, f"b/{ID}_000030.mp4", clip)
    assert isinstance(Library(tmp_path).picture(Picture(f"{ID}_000030", 5.0)), Place)
    put(tmp_path, f"b/{ID}_000030.mp4", whole)
    found = Library(tmp_path).picture(Picture(f"{ID}_000030", 5.0))
    assert isinstance(found, Missing) and found.cause == "ambiguous" and "b/" in found.detail


def test_what_cannot_be_read_says_why(tmp_path: Path, clip: Path) -> None:
    put(tmp_path, f"{ID}_0_1000.mp4", clip)
    (tmp_path / f"{'B' * 11}_000030.mp4").write_bytes(b"no video")
    prepared(tmp_path, "sample0001.jpg", 9)
    (tmp_path / "frames" / "sample0002.jpg").write_bytes((tmp_path / "frames" / "sample0001.jpg").read_bytes()[:200])
    library = Library(tmp_path)

    def cause(name: str, second: float | None) -> str:
        place = library.picture(Picture(name, second))
        found = read_picture(place) if isinstance(place, Place) else place
        return found.cause if isinstance(found, Missing) else "none"

    assert cause(f"{ID}_0_1000", 9.9) == "none"
    assert cause(f"{ID}_0_1000", 30.0) == "too short"
    assert cause("B" * 11 + "_000030", 5.0) == "cannot be decoded"
    assert (cause("sample0001", None), cause("sample0002", None)) == ("none", "cannot be decoded")
    assert cause("C" * 11, 5.0) == "no file"
    place = library.sound(Sound(f"{ID}_0_1000", 30.0, 3.0))
    assert isinstance(place, Place)
    sound = read_sound(place, 3.0, 16000)
    assert isinstance(sound, Missing) and sound.cause == "too short"


@pytest.mark.parametrize(("middle", "hertz"), [(0.2, 150), (0.5, 150), (2.0, 300), (3.9, 450), (4.0, 450)])
def test_a_window_over_an_end_is_moved_inside(
    tmp_path: Path, ffmpeg_run: Callable[..., None], middle: float, hertz: float
) -> None:
    tone(tmp_path, "sample0001.wav", ffmpeg_run)
    place = Library(tmp_path).sound(Sound("sample0001", middle, 1.0))
    assert isinstance(place, Place)
    sound = read_sound(place, 1.0, 16000)
    assert not isinstance(sound, Missing) and len(sound) == 16000
    assert pitch(sound) == pytest.approx(hertz, abs=15)


@pytest.mark.parametrize(
    ("middle", "hertz"),
    [
        (0.2, (250, 150, 350)),  # nothing before: the next two
        (2.0, (200, 300, 400)),
        (3.0, (300, 400, 200)),
        (3.9, (350, 450, 250)),
        (None, (200, 300, 400)),
    ],
)
def test_a_window_between_its_neighbours(
    tmp_path: Path, ffmpeg_run: Callable[..., None], middle: float | None, hertz: tuple[float, float, float]
) -> None:
    """The tone rises by 100 Hz a second; at an end both neighbours are on the one side."""
    tone(tmp_path, "sample0001.wav", ffmpeg_run)
    place = Library(tmp_path).sound(Sound("sample0001", middle, 3.0))
    assert isinstance(place, Place)
    sound = read_sound(place, 1.0, 16000, neighbours=True)
    assert not isinstance(sound, Missing) and len(sound) == 48000
    assert [pitch(part) for part in sound.reshape(3, 16000)] == pytest.approx(hertz, abs=15)
    own = read_sound(place, 1.0, 16000)
    np.testing.assert_allclose(sound[16000:32000], own, atol=0.01)  # resampled where it ends


@pytest.mark.parametrize("middle", [None, 0.5, 3.9])
def test_a_recording_shorter_than_the_window_is_repeated(
    tmp_path: Path, ffmpeg_run: Callable[..., None], middle: float | None
) -> None:
    tone(tmp_path, "sample0001.wav", ffmpeg_run, rate=16000)
    place = Library(tmp_path).sound(Sound("sample0001", middle, 10.0))
    assert isinstance(place, Place)
    sound = read_sound(place, 10.0, 16000)
    assert not isinstance(sound, Missing) and len(sound) == 160000
    np.testing.assert_array_equal(sound[:64000], sound[64000:128000])
    whole = read_sound(place, None, 16000)
    assert not isinstance(whole, Missing) and len(whole) == 64000


def test_links_are_followed_once(tmp_path: Path, clip: Path) -> None:
    put(tmp_path, f"a/{ID}_000030.mp4", clip)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    library = Library(tmp_path)
    assert library.counts["video"] == 2 and [path for path, *_ in library.listing()] == [f"a/{ID}_000030.mp4"]
    assert isinstance(library.picture(Picture(f"{ID}_000030", 5.0)), Place)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data"):
        Library(tmp_path / "none")
