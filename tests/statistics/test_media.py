"""Images, recordings and arrays to calibrate on: what is found, what is decoded, what cannot be."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from secateurs.errors import BadInput, CorruptFile
from secateurs.statistics.arrays import read_arrays
from secateurs.statistics.media import AUDIO, IMAGES, Item, find_items, open_image, open_wave, resampled, some


def write_wave(path: Path | io.BytesIO, samples: np.ndarray, rate: int = 8000, width: int = 2, channels: int = 1) -> None:
    with wave.open(path if isinstance(path, io.BytesIO) else str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def test_a_folder_gives_its_files_by_name_those_of_subfolders_too(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "a.JPG", "deep/c.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    found = find_items(tmp_path, IMAGES, "image")
    assert [item.path.name for item in found] == ["a.JPG", "b.png", "c.png"]
    assert find_items(tmp_path / "b.png", IMAGES, "image")[0].path == tmp_path / "b.png"


def test_images_of_a_column_and_of_a_folder_are_the_same(tmp_path):
    pil, pa, pq = (pytest.importorskip(name) for name in ("PIL.Image", "pyarrow", "pyarrow.parquet"))
    pil.new("L", (2, 1), 200).save(tmp_path / "grey.png")
    data = (tmp_path / "grey.png").read_bytes()
    pq.write_table(pa.table({"image": [{"bytes": data, "path": None}, None], "raw": [data, data]}), tmp_path / "i.parquet")
    (one,) = find_items(tmp_path / "i.parquet", IMAGES, "image")
    raw = find_items(tmp_path / "i.parquet", IMAGES, "raw")
    for item in (one, *raw, *find_items(tmp_path / "grey.png", IMAGES, ""), Item("decoded", pil.new("L", (2, 1), 200))):
        assert np.asarray(open_image(item)).tolist() == [[[200] * 3] * 2]
    assert np.asarray(open_image(Item("named", {"path": str(tmp_path / "grey.png")}))).shape == (1, 2, 3)


def test_an_image_that_is_none(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    pil.effect_noise((32, 32), 50).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("no image")
    for name in ("half.png", "text.png"):
        with pytest.raises(CorruptFile, match=f"{name}' cannot be read as an image"):
            open_image(find_items(tmp_path / name, IMAGES, "")[0])
    with pytest.raises(BadInput, match="row 0 is int, not the bytes of a file"):
        open_image(Item("row 0", 3))
    with pytest.raises(BadInput, match="row 1 cannot be read: No such file"):
        open_image(Item("row 1", {"bytes": None, "path": str(tmp_path / "absent.png")}))


@pytest.mark.parametrize(("width", "kind", "raw", "expected"), [
    (1, "u1", [0, 128, 192], [-1, 0, 0.5]),
    (2, "<i2", [-32768, 0, 16384], [-1, 0, 0.5]),
    (3, "u1", [0, 0, 128, 0, 0, 0, 0, 0, 64], [-1, 0, 0.5]),
    (4, "<i4", [-(2**31), 0, 2**30], [-1, 0, 0.5]),
])  # fmt: skip
def test_samples_of_every_width(tmp_path, width, kind, raw, expected):
    write_wave(tmp_path / "a.wav", np.array(raw, kind), 8000, width)
    samples, rate = open_wave(find_items(tmp_path, AUDIO, "audio")[0])
    assert rate == 8000 and samples.dtype == np.float32 and samples.tolist() == expected


def test_channels_are_averaged():
    stream = io.BytesIO()
    write_wave(stream, np.array([16384, 0, -16384, -16384], "<i2"), channels=2)
    assert open_wave(Item("a", stream.getvalue()))[0].tolist() == [0.25, -0.5]


def test_recordings_that_do_not_do(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF no")
    with pytest.raises(CorruptFile, match=r"a\.wav' cannot be read as a WAV file of whole numbers"):
        open_wave(find_items(tmp_path, AUDIO, "")[0])
    write_wave(tmp_path / "b.wav", np.array([], "<i2"))
    with pytest.raises(CorruptFile, match="no sample in it"):
        open_wave(find_items(tmp_path / "b.wav", AUDIO, "")[0])


@pytest.mark.parametrize(("rate", "wanted"), [(8000, 16000), (16000, 8000), (44100, 16000)])
def test_a_tone_stays_the_same_tone(rate, wanted):
    """100 whole periods in a second: its samples at another rate are known in closed form."""
    tone = np.sin(2 * np.pi * 100 * np.arange(rate) / rate).astype(np.float32)
    found = resampled(tone, rate, wanted)
    assert found == pytest.approx(np.sin(2 * np.pi * 100 * np.arange(wanted) / wanted), abs=1e-4)
    assert resampled(tone, rate, rate) is tone


def test_what_is_too_high_is_cut_off():
    tone = np.sin(2 * np.pi * 6000 * np.arange(16000) / 16000).astype(np.float32)
    assert np.abs(resampled(tone, 16000, 8000)).max() < 1e-4


def test_some_follow_the_seed():
    assert sorted(some(range(5), 9, 0)) == list(range(5))
    assert some(range(50), 9, 1) == some(range(50), 9, 1) != some(range(50), 9, 2)
    assert len(set(some(range(50), 9, 1))) == 9


def test_sources_that_do_not_do(tmp_path):
    with pytest.raises(BadInput, match=r"holds none of what is needed: give a folder of \.png or \.jpg files"):
        find_items(tmp_path, IMAGES, "image")
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(BadInput, match=r"a\.tar' cannot be read: give a folder of \.wav files"):
        find_items(tmp_path / "a.tar", AUDIO, "audio")
    with pytest.raises(BadInput, match=r"absent\.png' does not exist"):
        find_items(tmp_path / "absent.png", IMAGES, "image")


def test_arrays_of_both_kinds_of_file(tmp_path):
    st = pytest.importorskip("safetensors.torch")
    ids = torch.arange(6).view(3, 2)
    st.save_file({"input_ids": ids}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", input_ids=ids.numpy())
    for name in ("a.safetensors", "a.npz"):
        assert torch.equal(read_arrays(tmp_path / name)["input_ids"], ids)


def test_arrays_that_do_not_do(tmp_path):
    pytest.importorskip("safetensors")
    np.savez(tmp_path / "odd.npz", a=np.zeros((2, 3)), b=np.zeros(3))
    np.savez(tmp_path / "none.npz", a=np.zeros((0, 3)))
    np.savez(tmp_path / "empty.npz")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(BadInput, match=r"different numbers of samples, \{'a': 2, 'b': 3\}"):
        read_arrays(tmp_path / "odd.npz")
    for name in ("none.npz", "empty.npz"):
        with pytest.raises(BadInput, match="holds no samples"):
            read_arrays(tmp_path / name)
    for name in ("objects.npz", "broken.safetensors"):
        with pytest.raises(CorruptFile, match=name):
            read_arrays(tmp_path / name)
    with pytest.raises(BadInput, match=r"absent\.npz' does not exist"):
        read_arrays(tmp_path / "absent.npz")
