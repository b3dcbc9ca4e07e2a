"""The reader printed in docs/format.md reads what is saved, and the numbers of its example fit together."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from secateurs.formats import read_info, read_tensors, save
from secateurs.measure import paper_bytes

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")


def block(language):
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)
    return text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_the_printed_reader_reads_every_tensor(tmp_path, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 20), nn.BatchNorm1d(20), nn.Linear(20, 20)).to(dtype)
    model[2].weight = model[0].weight
    with torch.no_grad():
        model[0].weight.masked_fill_(torch.rand(20, 20) < 0.7, 0)
    save(model, tmp_path / "m")
    scope = {}
    exec(block("python"), scope)
    read, expected = scope["read_folder"](tmp_path / "m"), read_tensors(tmp_path / "m")
    assert read.keys() == expected.keys() and "bitmask" in {
        e["encoding"] for e in read_info(tmp_path / "m")["tensors"].values()
    }
    for name, array in read.items():
        mine = expected[name].view(torch.uint16).numpy() if expected[name].dtype == torch.bfloat16 else expected[name].numpy()
        assert array.shape == mine.shape and array.dtype == mine.dtype
        np.testing.assert_array_equal(array, mine)


def test_the_example_manifest_is_like_a_real_one(tmp_path):
    example = json.loads(block("json"))
    model = nn.ModuleDict({"embedding": nn.Embedding(421, 10), "head": nn.Linear(10, 421, bias=False)})
    model["head"].weight = model["embedding"].weight
    with torch.no_grad():
        model["embedding"].weight.view(-1)[460:] = 0
    save(model, tmp_path / "m")
    real = read_info(tmp_path / "m")
    assert list(example) == list(real)
    for key in ("format", "version", "ties", "tensors"):
        assert example[key] == real[key]
    assert list(example["sizes"]) == list(real["sizes"])
    for key in ("parameters", "nonzero", "payload_bytes", "dense_bytes", "paper_bytes"):
        assert example["sizes"][key] == real["sizes"][key]
    assert example["sizes"]["paper_bytes"] == paper_bytes(4210, 460)
