"""What a model is calibrated on: text as its kind reads it, images, recordings, ready inputs; and what cannot be."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from secateurs.cli.inputs import draw, loss_of
from secateurs.cli.opening import Source
from secateurs.cli.wanted import Wanted
from secateurs.errors import BadInput, CorruptFile
from secateurs.measure.process import anonymous_bytes
from tests.cli.speakers import WORDS, save_model, save_tokenizer
from tests.statistics.test_media import write_wave

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")
save_file = pytest.importorskip("safetensors.torch").save_file

WRAPPED = {"bert": "<s> $A </s>", "bare-bert": "<s> $A </s>", "t5": "$A </s>", "bare-t5": "$A </s>", "bart": "<s> $A </s>"}


@pytest.fixture
def folder(here: Path):
    """Makes the folder of a model with what prepares its inputs."""
    choose = random.Random(0)
    (here / "text.txt").write_text(" ".join(choose.choices(WORDS, k=300)))

    def make(name: str) -> Path:
        path = save_model(name, here / name)
        if name in (*WRAPPED, "llama", "whisper"):
            save_tokenizer(path, WRAPPED.get(name))
        if name in ("vit", "clip", "convnext"):
            size = {"height": 8, "width": 8} if name != "convnext" else {"height": 32, "width": 32}
            settings = {"image_processor_type": "ViTImageProcessor", "size": size}
            (path / "preprocessor_config.json").write_text(json.dumps(settings))
        if name == "whisper":
            transformers.WhisperFeatureExtractor(feature_size=4, chunk_length=1).save_pretrained(path)
        if name == "wav2vec2":
            transformers.Wav2Vec2FeatureExtractor().save_pretrained(path)
        return path

    return make


@pytest.fixture
def photos(here: Path) -> Path:
    pil = pytest.importorskip("PIL.Image")
    (here / "photos").mkdir()
    for i in range(10):
        pil.effect_noise((12, 9), 60).save(here / "photos" / f"{i}.png")
    return here / "photos"


@pytest.fixture
def sounds(here: Path) -> Path:
    (here / "sounds").mkdir()
    for i in range(3):
        tone = 9000 * np.sin(2 * np.pi * (300 + 100 * i) * np.arange(4000) / 8000)
        write_wave(here / "sounds" / f"{i}.wav", tone.astype("<i2"))
        (here / "sounds" / f"{i}.txt").write_text(" ".join(WORDS[i : i + 4]) + "\n")
    return here / "sounds"


def drawn(path: Path, source: object, samples: int = 6, length: int | None = None, column: str | None = None):
    return draw(Wanted(str(source), samples, length, column, 0), Source(path).open())


def test_a_causal_model_gets_bare_windows(folder) -> None:
    found = drawn(folder("llama"), "text.txt", length=16)
    (batch,) = found.batches
    assert batch["input_ids"].shape == (6, 16) and batch.keys() == {"input_ids"}
    assert found.words == "6 windows of 16 tokens of text.txt"
    assert drawn(Path("llama"), "text.txt").batches[0]["input_ids"].shape == (6, 32)  # what it has places for


def test_an_encoder_gets_windows_between_its_marks(folder) -> None:
    found = drawn(folder("bert"), "text.txt", length=16)
    ids = found.batches[0]["input_ids"]
    assert ids.shape == (6, 16) and set(ids[:, 0].tolist()) == {0} and set(ids[:, -1].tolist()) == {1}
    assert int(ids[:, 1:-1].min()) >= 3  # one text: no mark inside
    assert found.words.endswith("marks included")


@pytest.mark.parametrize(("name", "first"), [("t5", []), ("bart", [0])])
def test_an_encoder_decoder_continues_what_it_reads(folder, name: str, first: list[int]) -> None:
    (batch,) = drawn(folder(name), "text.txt", length=16).batches
    read, said = batch["input_ids"], batch["labels"]
    assert read.shape == said.shape == (6, 8)
    stream = [int(word[1:]) + 4 for word in Path("text.txt").read_text().split()]
    for i in range(6):
        own = read[i, len(first) : -1].tolist() + said[i, len(first) : -1].tolist()
        assert any(stream[at : at + len(own)] == own for at in range(len(stream)))  # the second half goes on from the first
        for half in (read[i], said[i]):
            assert half[: len(first)].tolist() == first and half[-1] == 1


def test_without_a_loss_the_decoder_reads_what_the_loss_would_give_it(folder) -> None:
    whole, bare = (drawn(folder(name), "text.txt", length=16).batches[0] for name in ("t5", "bare-t5"))
    model = Source(Path("t5")).open().model
    assert torch.equal(bare["decoder_input_ids"], model._shift_right(whole["labels"]))
    assert torch.equal(bare["input_ids"], whole["input_ids"]) and "labels" not in bare


def test_images_as_the_folder_prepares_them(folder, photos: Path) -> None:
    found = drawn(folder("vit"), photos, samples=9)
    assert [batch["pixel_values"].shape for batch in found.batches] == [(8, 3, 8, 8), (1, 3, 8, 8)]
    assert found.words == f"9 of 10 images of {photos}"
    pixels = torch.cat([batch["pixel_values"] for batch in found.batches])
    assert -1 <= pixels.min() < 0 < pixels.max() <= 1 and len(pixels.flatten(1).unique(dim=0)) == 9


def test_images_of_a_parquet_column_are_those_of_the_folder(folder, photos: Path, here: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"bytes": file.read_bytes(), "path": file.name} for file in sorted(photos.iterdir())]
    pq.write_table(pa.table({"image": rows, "label": list(range(10))}), here / "photos.parquet")
    model = folder("clip")
    (one,), (other,) = drawn(model, photos, 5).batches, drawn(model, "photos.parquet", 5).batches
    assert torch.equal(one["pixel_values"], other["pixel_values"])
    with pytest.raises(BadInput, match=r"row \d of 'photos\.parquet' is int, not the bytes of a file"):
        drawn(model, "photos.parquet", column="label")


def test_recordings_with_what_is_said_in_them(folder, sounds: Path, capsys) -> None:
    found = drawn(folder("whisper"), sounds)
    assert found.words == f"3 of 3 recordings of {sounds}" and len(found.batches) == 3
    assert all(batch["input_features"].shape == (1, 4, 100) for batch in found.batches)
    said = sorted(batch["labels"][0].tolist() for batch in found.batches)
    assert said == [[i + 4, i + 5, i + 6, i + 7] for i in range(3)]
    (sounds / "1.txt").unlink()
    silent = [batch for batch in drawn(Path("whisper"), sounds).batches if "labels" not in batch]
    assert [batch["decoder_input_ids"].tolist() for batch in silent] == [[[1]]]
    assert "note: 1 of 3 recordings have no .txt beside them" in capsys.readouterr().err


def test_a_model_of_the_samples_themselves(folder, sounds: Path) -> None:
    found = drawn(folder("wav2vec2"), sounds)
    assert all(batch["input_values"].shape == (1, 8000) for batch in found.batches)  # 8 kHz made 16 kHz


def test_ready_inputs_of_any_model(folder, here: Path) -> None:
    ids = torch.arange(40).view(10, 4)
    save_file({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, "ready.safetensors")
    found = drawn(folder("bert"), "ready.safetensors", samples=7)
    (batch,) = found.batches
    assert batch["input_ids"].shape == (7, 4) and batch["attention_mask"].shape == (7, 4)
    assert len({int(row[0]) for row in batch["input_ids"]}) == 7 and found.words == "7 of 10 samples of ready.safetensors"
    np.savez("ready.npz", pixel_values=np.zeros((3, 3, 8, 8)))
    (batch,) = drawn(folder("vit"), "ready.npz").batches
    assert batch["pixel_values"].dtype == torch.float32  # the model's


def test_text_of_a_model_that_is_no_causal_one_has_no_loss(folder) -> None:
    for name in ("bert", "bare-bert", "bare-t5"):
        path = folder(name)
        (batch,) = drawn(path, "text.txt", length=16).batches
        model = Source(path).open().model
        with pytest.raises(BadInput, match=f"loss of a {type(model).__name__} needs labels, which 'text.txt' does not give"):
            loss_of("text.txt")(model, batch)
    (batch,) = drawn(folder("t5"), "text.txt", length=16).batches
    assert loss_of("text.txt")(Source(Path("t5")).open().model, batch) > 0


@pytest.mark.parametrize(
    ("name", "source", "quotes"),
    [
        ("vit", "text.txt", "'text.txt' is text, and a ViTForImageClassification reads images"),
        ("whisper", "text.txt", "reads recordings: give a folder of them, or a .safetensors file with 'input_features'"),
        ("vit", "empty", "'empty' holds none of what is needed: give a folder of .png or .jpg files"),
        ("vit", "absent.png", "'absent.png' does not exist"),
        ("bert", "photos", "'photos' is no text that can be read"),
        ("vit", "ids.npz", "'ids.npz' has 'input_ids', which ViTForImageClassification does not take"),
        ("bert", "ids.npz", "'ids.npz' has input_ids from 0 to 99, and the model knows 48 ids, 0 to 47"),
        ("vit", "small.npz", "does not take what was made of 'small.npz' (pixel_values (1, 3, 4, 4))"),
        ("llama", "mask.npz", "does not take what was made of 'mask.npz' (attention_mask (1, 4))"),
    ],
)
def test_what_does_not_fit_the_model(folder, photos: Path, name: str, source: str, quotes: str) -> None:
    Path("empty").mkdir()
    np.savez("ids.npz", input_ids=np.array([[0, 99]]))
    np.savez("small.npz", pixel_values=np.zeros((1, 3, 4, 4)))
    np.savez("mask.npz", attention_mask=np.ones((1, 4), int))
    with pytest.raises(BadInput) as caught:
        drawn(folder(name), source)
    assert quotes in str(caught.value)


def test_windows_that_do_not_fit(folder) -> None:
    with pytest.raises(BadInput, match=r"BertForMaskedLM does not take .* \(input_ids \(6, 40\)\).*A shorter --length may do"):
        drawn(folder("bert"), "text.txt", length=40)
    with pytest.raises(BadInput, match="--length 5: windows need at least 6 tokens, the marks included"):
        drawn(folder("bart"), "text.txt", length=5)
    with pytest.raises(BadInput, match="301 tokens, fewer than one window of length=498"):
        drawn(Path("bert"), "text.txt", length=500)


def test_a_tokenizer_of_another_model(folder) -> None:
    path = folder("bert")
    config = json.loads((path / "config.json").read_text()) | {"vocab_size": 20}
    torch.manual_seed(0)
    transformers.BertForMaskedLM(transformers.BertConfig(**config)).save_pretrained(path)
    with pytest.raises(BadInput, match="the model knows 20 ids, 0 to 19: it is the tokenizer of another model"):
        drawn(path, "text.txt", length=16)


def test_an_image_that_is_none_is_named(folder, photos: Path) -> None:
    (photos / "3.png").write_text("no image")
    with pytest.raises(CorruptFile, match=r"3\.png' cannot be read as an image"):
        drawn(folder("vit"), photos, 10)


def test_a_folder_that_prepares_nothing(folder, photos: Path) -> None:
    path = folder("vit")
    (path / "preprocessor_config.json").unlink()
    with pytest.raises(BadInput, match=r"holds nothing that prepares .*'pixel_values' can be given ready in a .safetensors"):
        drawn(path, photos)


@pytest.mark.parametrize("name", ["bert", "t5", "vit", "convnext", "whisper", "wav2vec2"])
def test_pruned_from_the_shell(folder, photos: Path, sounds: Path, as_json, name: str) -> None:
    source = {"vit": photos, "convnext": photos, "whisper": sounds, "wav2vec2": sounds}.get(name, "text.txt")
    words = ("prune", folder(name), "--sparsity", 0.5, "--calibration", source, "--samples", 4, "--length", 16)
    told = as_json(*words, "--method", "wanda", "--out", "pruned")
    assert told["verified"]["ok"] and told["perplexity"] is None and str(source) in told["calibration"]
    assert abs(told["report"][-1]["sparsity"] - 0.5) < 0.01  # to the rounding of its rows
    assert sum(row["removed"] for row in told["report"][:-1]) == told["report"][-1]["removed"] > 0


def test_gradients_by_the_model_s_own_loss(folder, photos: Path, as_json, command) -> None:
    words = ("prune", folder("vit"), "--method", "gblm", "--sparsity", 0.5, "--out", "pruned", "--calibration")
    result = command(*words, photos)
    assert result.exit_code == 2 and "the loss of a ViTForImageClassification needs labels" in result.stderr
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(4, 3, 8, 8, generator=generator)
    save_file({"pixel_values": pixels, "labels": torch.tensor([0, 1, 1, 0])}, "ready.safetensors")
    assert as_json(*words, "ready.safetensors")["verified"]["ok"]
    text = ("--calibration", "text.txt", "--samples", 3, "--length", 16)
    assert as_json("prune", folder("t5"), *words[2:6], "--out", "continued", *text)["verified"]["ok"]


@pytest.mark.skipif(anonymous_bytes() is None, reason="the system does not tell what a process holds")
def test_images_for_a_model_that_is_never_in_memory(folder, photos: Path, as_json) -> None:
    words = ("prune", folder("vit"), "--method", "wanda", "--sparsity", 0.5, "--calibration", photos, "--samples", 9)
    whole = as_json(*words, "--format", "huggingface", "--out", "whole")
    told = as_json(*words, "--memory", "64GB", "--out", "streamed")
    assert told["report"] == whole["report"] and told["calibration"] == whole["calibration"] == f"9 of 10 images of {photos}"
    mine, theirs = (Source(Path(name)).open().model.state_dict() for name in ("streamed", "whole"))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in theirs)
    page = Path("streamed/report.html").read_text()
    assert "ViTForImageClassification, pruned by wanda" in page and "memory: at most" in page and "64 GB allowed" in page
