import csv

import numpy as np
import pytest

from dsol_core.types import DataError
from tasks.adapters import photo_folder
from tasks.adapters.photo_folder import Photo, Recording

SHARES = (0.8, 0.1, 0.1)


def _photos(count=20):
    return [Photo(f"photos/harp/{i}.jpg", None) for i in range(count)]


def _whole(count, seconds=3.0):
    return [Recording(f"audio/{i}.flac", seconds, f"repo notes/note {60 + i}") for i in range(count)]


def _phrase(number, *pitches):
    notes = frozenset(f"repo notes/note {pitch}" for pitch in pitches)
    return Recording(f"audio/phrase{number}.flac", 5.0, f"repo phrase {number}", notes)


def _split(recordings, photos=None, seed=0):
    return photo_folder.split_sources("harp", photos or _photos(), recordings, SHARES, np.random.default_rng(seed))


def _write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def _row(kind, file, source_path="", seconds="3.0", repo="repo"):
    return {
        "class": "harp",
        "kind": kind,
        "file": file,
        "source_repo_or_package": repo,
        "source_path": source_path,
        "seconds": seconds,
    }


def test_the_manifest_tells_recordings_phrases_and_their_notes(tmp_path):
    rows = [
        _row("photo", "photos/harp/0.jpg"),
        _row("photo", "photos/harp/1.jpg"),
        _row("audio", "a", "wav/Harp/1f81cc2b.wav@8.4s"),
        _row("audio", "b", "wav/Harp/1f81cc2b.wav@2.5s"),
        _row("audio", "c", "samples/harp/As2.mp3@0.0s"),
        _row("audio", "d", "samples/harp/Bb2.mp3"),
        _row("audio", "e", "samples/harp: phrase of recorded single notes 46-60-46"),
        _row("audio", "f", "pattern of recorded hits: wav/x.wav; wav/y.wav"),
        _row("audio", "g", "GM.sf2 bank0 preset46, phrase rendered from its recorded samples: 60-61"),
        _row("video", "videos/000.mp4"),
    ]
    boxes = _write(tmp_path / "boxes.csv", [{"file": "photos/harp/1.jpg", "x": 0.2, "y": 0.1, "w": 0.9, "h": 0.5}])
    found = photo_folder.read_sources(_write(tmp_path / "manifest.csv", rows), boxes)
    photos, recordings = found["harp"]
    assert photos[0].box is None
    assert (photos[1].box.x, photos[1].box.width) == pytest.approx((0.2, 0.8))
    by_file = {one.file: one for one in recordings}
    assert by_file["a"].source == by_file["b"].source == "repo wav/Harp/1f81cc2b.wav"
    assert by_file["c"].source == by_file["d"].source == "repo samples/harp/note 46"
    assert by_file["e"].notes == {"repo samples/harp/note 46", "repo samples/harp/note 60"}
    assert by_file["f"].notes == {"repo wav/x.wav", "repo wav/y.wav"}
    assert by_file["g"].notes == {"repo GM.sf2"}
    assert [one.file for one in recordings if one.phrase] == ["e", "f", "g"]


def test_files_of_one_recording_stay_together():
    recordings = [Recording(f"{i}{cut}", 5.0, f"repo wav/{i}.wav") for i in range(30) for cut in "ab"]
    for seed in range(5):
        split = _split(recordings, seed=seed)
        sources = {name: {one.source for one in split.recordings[name]} for name in ("train", "val", "test")}
        assert not sources["train"] & sources["val"] | sources["train"] & sources["test"]
        assert not sources["val"] & sources["test"]
        assert sum(len(ones) for ones in split.recordings.values()) == 60
        assert all(sources.values())


def test_phrases_train_only_and_those_with_a_held_out_note_are_left_out():
    recordings = _whole(12) + [_phrase(pitch, pitch, 90) for pitch in range(60, 72)]
    split = _split(recordings)
    held = {one.source for name in ("val", "test") for one in split.recordings[name]}
    assert split.uninterrupted_test
    assert not any(one.phrase for one in split.recordings["val"])
    assert not any(one.notes & held for one in split.recordings["train"])
    assert split.dropped["phrase with a note that is held out"] == len(held)
    assert not split.test_notes_in_training


def test_recordings_that_few_phrases_are_made_of_are_held_out_first():
    recordings = _whole(12) + [_phrase(i, 60 + i % 8) for i in range(24)]  # notes 68 to 71 in none
    for seed in range(5):
        test = {one.source for one in _split(recordings, seed=seed).recordings["test"]}
        assert test <= {f"repo notes/note {pitch}" for pitch in (68, 69, 70, 71)}


def test_a_class_of_phrases_alone_is_tested_on_phrases_and_says_so():
    split = _split([_phrase(i, 60, 61) for i in range(20)])
    assert not split.uninterrupted_test
    assert split.test_notes_in_training
    assert all(split.recordings.values())


def test_phrases_rendered_from_the_tested_samples_are_reported():
    samples = [Recording(f"{i}", 2.0, f"repo GM.sf2 sample {i}") for i in range(5)]
    rendered = [Recording(f"r{i}", 5.0, f"repo GM.sf2 phrase {i}", frozenset({"repo GM.sf2"})) for i in range(10)]
    split = _split(samples + rendered)
    assert split.uninterrupted_test
    assert split.test_notes_in_training
    assert split.summary()["test_notes_in_training"] is True
    assert split.summary()["splits"]["test"]["phrases"] == 0


def test_few_recordings_still_reach_every_split():
    for recordings in (_whole(3), _whole(4), [*_whole(1), _phrase(0, 90), _phrase(1, 91)]):
        split = _split(recordings, _photos(3))
        assert all(split.recordings.values())
        assert all(split.photos.values())


def test_few_long_recordings_reach_every_split():
    windows = [Recording(f"{i}@{cut}", 5.0, f"repo wav/{i}.wav") for i in range(3) for cut in range(10)]
    for seed in range(5):
        split = _split(windows, seed=seed)
        assert [len({one.source for one in split.recordings[name]}) for name in ("train", "val", "test")] == [1, 1, 1]
        assert len(split.pairs("val", 4, np.random.default_rng(0))) == 4


def test_the_share_held_out_counts_recordings_and_not_their_windows():
    windows = [Recording(f"{i}@{cut}", 5.0, f"repo wav/{i}.wav") for i in range(30) for cut in range(10)]
    split = _split(windows)
    assert [len({one.source for one in split.recordings[name]}) for name in ("val", "test")] == [3, 3]


def test_a_split_that_stays_empty_names_the_class_and_what_it_needs():
    with pytest.raises(DataError, match="harp has no photos left for train; expected at least three photos"):
        photo_folder.split_sources("harp", _photos(4), _whole(9), (0.0, 0.5, 0.5), np.random.default_rng(0))


def test_a_recording_without_a_length_is_left_out_and_counted(tmp_path):
    rows = [_row("photo", "x.jpg"), _row("audio", "a", "a.wav", ""), _row("audio", "b", "b.wav", "long")]
    _, recordings = photo_folder.read_sources(_write(tmp_path / "manifest.csv", rows), None)["harp"]
    split = _split([*recordings, *_whole(4)])
    assert split.dropped["no length in the manifest"] == 2
    assert split.dropped["shorter than 1 s"] == 0
    assert not {one.file for ones in split.recordings.values() for one in ones} & {"a", "b"}


def test_pairs_use_every_photo_and_recording_and_differ():
    split = _split(_whole(30))
    pairs = split.pairs("train", 60, np.random.default_rng(0))
    assert len(set(pairs)) == 60
    assert {photo for photo, _ in pairs} == set(split.photos["train"])
    assert {recording for _, recording in pairs} == set(split.recordings["train"])


def test_too_few_or_too_short_files_are_named():
    with pytest.raises(DataError, match="harp has 2 photos"):
        _split(_whole(9), _photos(2))
    with pytest.raises(DataError, match="0 recordings of at least 1 s"):
        _split(_whole(9, seconds=0.5))


def test_a_manifest_without_its_columns_or_without_sounds_is_named(tmp_path):
    with pytest.raises(DataError, match=r"m\.csv lacks the columns class, kind"):
        photo_folder.read_sources(_write(tmp_path / "m.csv", [{"file": "x"}]), None)
    with pytest.raises(DataError, match="harp has 1 photos and 0 recordings"):
        photo_folder.read_sources(_write(tmp_path / "n.csv", [_row("photo", "x.jpg")]), None)


def test_a_manifest_of_a_spreadsheet_is_read_and_a_damaged_one_is_named(tmp_path):
    path = _write(tmp_path / "manifest.csv", [_row("photo", "photos/flûte.jpg"), _row("audio", "a", "wav/x.wav")])
    plain = photo_folder.read_sources(path, None)
    path.write_text(path.read_text().replace("flûte.jpg,repo,,3.0", "flûte.jpg"))  # a photo has no length and no source
    assert photo_folder.read_sources(path, None) == plain
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert photo_folder.read_sources(path, None) == plain
    text = path.read_text(encoding="utf-8-sig")
    path.write_text(f"{text}harp,audio,b.flac\n")  # a row that ends early: a recording of unknown length
    (_, recordings) = photo_folder.read_sources(path, None)["harp"]
    assert [one.file for one in recordings][-1] == "b.flac" and np.isnan(recordings[-1].seconds)
    for content, said in (
        (text.encode("latin-1"), "manifest.csv cannot be read .* expected comma-separated UTF-8 text"),
        (b"", "lacks the columns"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=said):
            photo_folder.read_sources(path, None)


def test_shares_need_not_add_up_to_one():
    whole = photo_folder.split_sources("harp", _photos(), _whole(20), SHARES, np.random.default_rng(0))
    assert photo_folder.split_sources("harp", _photos(), _whole(20), (8, 1, 1), np.random.default_rng(0)) == whole


def test_a_box_that_is_none_costs_the_box_only(tmp_path, caplog):
    places = [("a.jpg", "0.1"), ("b.jpg", ""), ("c.jpg", "1.2"), ("d.jpg", "wide"), ("e.jpg", "-0.1")]
    boxes = [{"class": "harp", "file": name, "x": x, "y": "0.2", "w": "0.5", "h": "0.9"} for name, x in places]
    rows = [*(_row("photo", name) for name, _ in places), _row("audio", "a", "a.wav")]
    manifest, table = _write(tmp_path / "manifest.csv", rows), _write(tmp_path / "boxes.csv", boxes)
    photos, _ = photo_folder.read_sources(manifest, table)["harp"]
    known = {one.file: one.box for one in photos if one.box}
    assert set(known) == {"a.jpg", "e.jpg"}
    assert (known["e.jpg"].x, known["e.jpg"].width, known["a.jpg"].height) == pytest.approx((0.0, 0.4, 0.8))
    assert len(caplog.messages) == 3 and "boxes.csv, line 3: box , 0.2, 0.5, 0.9 of b.jpg" in caplog.messages[0]


def test_the_real_folder_divides_without_leaks(shared_dir):
    folder = shared_dir / "data/real-av"
    found = photo_folder.read_sources(folder / "manifest.csv", folder / "boxes_auto.csv")
    assert len(found) == 14
    assert sum(photo.box is not None for photos, _ in found.values() for photo in photos) == 188
    shared_notes = []
    for row, (name, (photos, recordings)) in enumerate(found.items()):
        split = photo_folder.split_sources(name, photos, recordings, SHARES, np.random.default_rng(row))
        test = {one.source for one in split.recordings["test"]}
        assert split.uninterrupted_test, name
        assert not test & {one.source for one in split.recordings["train"] + split.recordings["val"]}
        assert not any(one.notes & test for one in split.recordings["train"] + split.recordings["val"])
        if split.test_notes_in_training:
            shared_notes.append(name)
    assert shared_notes == ["banjo"]  # its samples are also what its rendered phrases are played from
