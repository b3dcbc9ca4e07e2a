"""Reading the data folder, and the batches that the recipes' tasks give."""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from benchmarks.nets.resnet import ResNet
from benchmarks.nets.translator import Translator
from benchmarks.nets.wordlm import WordLM
from benchmarks.tasks import cifar, digits, language, mnist, pictures, reading, translation
from secateurs.comparing.running.data import Split
from secateurs.comparing.running.training import Training
from secateurs.comparing.spec import Optimizer

DATA = os.environ.get("SECATEURS_DATA")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A data folder with 12 training and 4 test images of 2 x 2 grey pixels, and an empty cache."""
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    monkeypatch.setattr(reading, "CACHE", tmp_path / "cache")
    for split, count in (("train", 12), ("test", 4)):
        rows = {"image": [{"bytes": _png(10 * i), "path": ""} for i in range(count)], "label": [i % 3 for i in range(count)]}
        parquet.write_table(pyarrow.table(rows), tmp_path / "data" / "tiny" / f"{split}.parquet")
    return tmp_path


def _png(grey: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((2, 2), grey, np.uint8)).save(stream, "png")
    return stream.getvalue()


def test_data_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SECATEURS_DATA", raising=False)
    with pytest.raises(ValueError, match="SECATEURS_DATA"):
        reading.root()
    monkeypatch.setenv("SECATEURS_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="no folder named 'data'"):
        reading.root()
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=r"no file .*mnist.*train\.parquet"):
        reading.columns("mnist", "train")


def test_images_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = reading.images("tiny", "train")
    assert pixels.shape == (12, 1, 2, 2) and pixels.dtype == np.uint8 and labels.tolist() == [0, 1, 2] * 4
    monkeypatch.setattr(reading, "columns", None)  # not called again
    assert np.array_equal(reading.images("tiny", "train")[0], pixels)
    assert not list((folder / "cache").glob("*.part"))


def test_pictures_are_normalised_and_split_from_the_end(folder: Path) -> None:
    found = pictures.pictures("tiny", held_out=5, mean=(0.5,), deviation=(0.25,))
    assert {name: len(part) for name, part in found.items()} == {"train": 7, "validation": 5, "test": 4}
    images, classes = found["validation"].batch(torch.tensor([4, 0]))
    assert images[:, 0, 0, 0].tolist() == pytest.approx([(70 / 255 - 0.5) / 0.25, (110 / 255 - 0.5) / 0.25])
    assert classes.tolist() == [7 % 3, 11 % 3]


def test_augmentation_moves_mirrors_and_repeats_by_seed() -> None:
    images = torch.arange(1.0, 33).expand(8, 3, 32, 32)
    torch.manual_seed(0)
    first, labels = cifar.augmented((images, torch.arange(8)))
    torch.manual_seed(0)
    assert torch.equal(cifar.augmented((images, torch.arange(8)))[0], first) and labels.tolist() == list(range(8))
    rows = first[:, 0, 16].tolist()
    steps = {b - a for row in rows for a, b in itertools.pairwise(row) if a and b}
    assert steps == {1.0, -1.0}  # some rise, some are mirrored, none is torn
    assert len({tuple(row) for row in rows}) > 2


def test_digits_perceptron_fits_its_data() -> None:
    found = digits.data()
    assert [len(found[part][1]) for part in ("train", "validation", "test")] == [897, 360, 540]
    assert digits.perceptron(16.0)(found["test"][0][:3]).shape == (3, 10)


@pytest.mark.skipif(not DATA, reason="SECATEURS_DATA is not set")
def test_real_images_have_their_counts() -> None:
    assert [len(part) for part in mnist.data().values()] == [55_000, 5_000, 10_000]
    assert [len(part) for part in cifar.data().values()] == [45_000, 5_000, 10_000]
    assert mnist.data()["test"].batch(torch.arange(500))[0].std() == pytest.approx(1, abs=0.05)


@pytest.mark.skipif(not DATA, reason="SECATEURS_DATA is not set")
def test_reference_resnet56_loads_and_classifies() -> None:
    from safetensors.torch import load_file

    model = ResNet(56).eval()
    model.load_state_dict(load_file(reading.root() / "models" / "cifar10-resnet56.safetensors"))
    images, classes = cifar.data()["test"].batch(torch.arange(500))
    with torch.no_grad():
        assert int((model(images).argmax(1) == classes).sum()) > 425


def test_vocabulary_ranks_by_count_then_alphabet() -> None:
    assert language.vocabulary(["b", "a", "b", "c", "a", "d"], 4) == ["<unk>", "a", "b", "c"]


def test_text_gives_windows_and_the_words_behind() -> None:
    text = language.Text(np.arange(11), unroll=5)
    words, following = text.batch(torch.tensor([1, 0]))
    assert len(text) == 2 and words.t().tolist() == [[5, 6, 7, 8, 9], [0, 1, 2, 3, 4]]
    assert torch.equal(following, words + 1)


def test_perplexity_of_equal_guesses_is_the_number_of_words() -> None:
    model = WordLM(4, words=7)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    ids = np.random.default_rng(0).integers(0, 7, 2_100)
    assert language.perplexity(model, Split(language.Text(ids, 20))) == pytest.approx(7)


def _pairs() -> translation.Pairs:
    ids = np.full((12, 2, 8), translation.PAD)
    for i in range(12):
        for side, length in enumerate((2 + i % 4, 3 + i % 3)):
            ids[i, side, :length] = [*range(4, 3 + length), translation.END]
    return translation.Pairs(ids, ["a"] * 12, 20)


def test_pairs_are_trimmed_and_shifted() -> None:
    source, counts, fed, target = _pairs().batch(torch.tensor([0, 1]))
    assert source.t().tolist() == [[4, 2, 0], [4, 5, 2]] and counts.tolist() == [2, 3]
    assert target.t().tolist() == [[4, 5, 2, 0], [4, 5, 6, 2]]
    assert fed.t().tolist() == [[1, 4, 5, 2], [1, 4, 5, 6]]


def test_sentence_batches_are_a_permutation_of_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(3, 40, (1000, 2))
    found = translation.batches(lengths, 10, seed=3, epoch=1)
    assert sorted(found.flatten().tolist()) == list(range(1000))
    assert np.ptp(lengths[found, 1], axis=1).mean() < 5
    assert np.array_equal(found, translation.batches(lengths, 10, seed=3, epoch=1))
    assert not np.array_equal(found, translation.batches(lengths, 10, seed=3, epoch=2))


def _trained(train: Any, model: torch.nn.Module, source: Any, batch: int, **stopped: Any) -> Training:
    settings = Optimizer("adam", 0.01, clip=1.0)
    training = Training(model, {"train": Split(source)}, steps=9, seed=1, batch=batch, settings=settings, **stopped)
    train(training)
    training.finish()
    return training


@pytest.mark.parametrize("kind", ["language", "translation"])
def test_own_training_goes_on_to_the_same_bits_after_a_kill(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateurs.comparing.running.training.SAVE_SECONDS", 0.0)
    train: Any = language.train if kind == "language" else translation.train
    text = language.Text(np.random.default_rng(0).integers(0, 9, 70), 4)  # comes round to its beginning within nine steps

    def fresh() -> tuple[Any, torch.nn.Module, Any, int]:
        torch.manual_seed(2)
        return (train, WordLM(4, words=9), text, 3) if kind == "language" else (train, Translator(4, 20), _pairs(), 4)

    def killed(name: str, step: int, steps: int) -> None:
        if step == 7:
            raise KeyboardInterrupt

    whole = _trained(*fresh())
    with pytest.raises(KeyboardInterrupt):
        _trained(*fresh(), checkpoint=tmp_path / "state.pt", tell=killed)
    resumed = _trained(*fresh(), checkpoint=tmp_path / "state.pt")
    assert resumed.history == whole.history and len(whole.history) == 9
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
