"""A saved folder gives back the model bit for bit: tied weights, buffers, dtypes, another process, Hugging Face classes."""

import json
import math
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.formats import load, read_info, read_tensors, save
from secateurs.measure import sizes


class Net(nn.Module):
    """Convolution, norm, tied embedding and head, a buffer of each kind, and a weight that is a slice of another memory."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.embedding, self.head = nn.Embedding(16, 4), nn.Linear(4, 16)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.arange(3.0), persistent=False)
        both = torch.randn(2, 8)
        self.first, self.second = nn.Parameter(both[0]), nn.Parameter(both[1])

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3))) * self.scale[2] + (self.first * self.second).sum()


def pruned(seed=0, dtype=torch.float32, sparsity=0.8):
    torch.manual_seed(seed)
    model = Net().to(dtype)
    with torch.no_grad():
        for weight in (model.conv.weight, model.embedding.weight):
            weight.masked_fill_(torch.rand(weight.shape) < sparsity, 0)
        model.norm.running_mean.normal_()
        model.norm.num_batches_tracked += 7
    return model.eval()


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and torch.equal(a[n].reshape(-1).view(torch.uint8), b[n].reshape(-1).view(torch.uint8))
        for n in a
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_round_trip_is_bit_identical(tmp_path, dtype):
    model, x = pruned(dtype=dtype), torch.randn(2, 1, 8, 8, dtype=dtype)
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m", lambda: Net().to(dtype))
    assert same(model, loaded)
    assert loaded.head.weight is loaded.embedding.weight
    assert not loaded.training
    assert torch.equal(model(x), loaded(x))


def test_the_input_is_not_changed(tmp_path):
    model = pruned().train()
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    save(model, tmp_path / "m")
    assert same(model, pruned()) and model.training and model.conv.weight.grad is not None


def test_manifest_says_what_is_there(tmp_path):
    model = pruned()
    save(model, tmp_path / "m")
    info, counts = read_info(tmp_path / "m"), sizes(model)
    assert info["ties"] == {"head.weight": "embedding.weight"}
    assert info["tensors"]["embedding.weight"]["encoding"] == "bitmask"
    assert info["tensors"]["norm.num_batches_tracked"] == {
        "encoding": "dense",
        "dtype": "int64",
        "shape": [],
        "nonzero": 1,
        "bytes": 8,
    }
    assert "scale" not in info["tensors"]
    assert info["sizes"]["parameters"] == counts.parameters
    assert info["sizes"]["nonzero"] == counts.nonzero
    assert info["sizes"]["dense_bytes"] == counts.dense_bytes
    assert info["sizes"]["paper_bytes"] == math.ceil(counts.paper_bytes)
    assert info["sizes"]["payload_bytes"] == sum(entry["bytes"] for entry in info["tensors"].values()) < counts.dense_bytes
    assert info["sizes"]["file_bytes"] == (tmp_path / "m" / "weights.safetensors").stat().st_size
    assert info["model"]["class"].endswith("Net")


def test_tensors_without_a_network(tmp_path):
    model = pruned()
    save(model, tmp_path / "m")
    tensors = read_tensors(tmp_path / "m")
    assert tensors.keys() == model.state_dict().keys()
    assert tensors["head.weight"] is tensors["embedding.weight"]
    assert torch.equal(tensors["conv.weight"], model.conv.weight)


def test_side_files_are_written_and_checked(tmp_path):
    class Plan:
        def save(self, folder):
            (folder / "plan.json").write_text("{}")

    class Recipe:
        def to_dict(self):
            return {"method": "gmp"}

    save(pruned(), tmp_path / "m", recipe=Recipe(), report=[{"name": "total"}], plan=Plan())
    assert json.loads((tmp_path / "m" / "recipe.json").read_text()) == {"method": "gmp"}
    assert json.loads((tmp_path / "m" / "report.json").read_text()) == [{"name": "total"}]
    assert read_info(tmp_path / "m")["files"].keys() == {"plan.json", "recipe.json", "report.json", "weights.safetensors"}


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": object()}])
def test_a_report_that_is_no_json_is_refused_before_anything_is_written(tmp_path, value):
    with pytest.raises(BadInput, match="report cannot be written as JSON"):
        save(pruned(), tmp_path / "m", report=value)
    assert not list(tmp_path.iterdir())


def test_a_new_process_computes_the_same(tmp_path):
    """The network's code is its own file; the folder alone carries the values."""
    (tmp_path / "shapes.py").write_text(
        textwrap.dedent("""
        from torch import nn
        def build():
            return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    """)
    )
    scope = {}
    exec((tmp_path / "shapes.py").read_text(), scope)
    torch.manual_seed(1)
    model, x = scope["build"]().eval(), torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        model[4].weight.masked_fill_(torch.rand(10, 144) < 0.9, 0)
        torch.save({"x": x, "y": model(x)}, tmp_path / "seen.pt")
    save(model, tmp_path / "m")
    code = textwrap.dedent("""
        import sys, torch
        sys.path.insert(0, sys.argv[1])
        import shapes
        from secateurs.formats import load
        seen = torch.load(sys.argv[1] + "/seen.pt", weights_only=True)
        model = load(sys.argv[1] + "/m", shapes.build)
        sys.exit(0 if torch.equal(model(seen["x"]), seen["y"]) else 1)
    """)
    env_path = [p for p in sys.path if p]
    code = f"import sys; sys.path[:0] = {env_path!r}\n" + code
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_minus_zeros_are_kept_and_mentioned(tmp_path):
    model = nn.Linear(10, 10, bias=False)
    with torch.no_grad():
        model.weight.copy_(-torch.ones(10, 10) * (torch.arange(100).view(10, 10) % 2))
    with pytest.warns(UserWarning, match="50 of 100 entries are minus zero") as caught:
        save(model, tmp_path / "m")
    assert caught[0].filename == __file__
    assert torch.signbit(load(tmp_path / "m", lambda: nn.Linear(10, 10, bias=False)).weight).all()
    model.weight.data.add_(0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(model, tmp_path / "n")
    assert read_info(tmp_path / "n")["sizes"]["nonzero"] == 50


def test_float8_and_byte_tensors(tmp_path):
    def build():
        model = nn.Module()
        model.weight = nn.Parameter(torch.zeros(64).to(torch.float8_e4m3fn), requires_grad=False)
        model.register_buffer("codes", torch.zeros(5, dtype=torch.uint8))
        return model

    model = build()
    model.weight.data[3] = torch.tensor(1.5).to(torch.float8_e4m3fn)
    model.codes[2] = 200
    save(model, tmp_path / "m")
    assert read_info(tmp_path / "m")["tensors"]["weight"] == {
        "encoding": "bitmask", "dtype": "float8_e4m3fn", "shape": [64], "nonzero": 1, "bytes": 9
    }  # fmt: skip
    assert same(load(tmp_path / "m", build), model)


class TestHuggingFace:
    @pytest.fixture
    def model(self):
        transformers = pytest.importorskip("transformers")
        config = transformers.LlamaConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=32,
            max_position_embeddings=16, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
        )  # fmt: skip
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config).eval()
        model.generation_config.max_new_tokens = 3
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.masked_fill_(torch.rand(32, 16) < 0.9, 0)
        return model

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_rebuilt_without_a_factory(self, model, dtype, attention, tmp_path):
        model.to(dtype)  # casts the rotary frequencies too, which no state dict holds
        model.config._attn_implementation = attention
        ids = torch.arange(6)[None]
        save(model, tmp_path / "m")
        loaded = load(tmp_path / "m")
        assert type(loaded) is type(model) and same(model, loaded)
        assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
        assert loaded.config._attn_implementation == attention
        assert loaded.generation_config.max_new_tokens == 3
        assert torch.equal(model(ids).logits, loaded(ids).logits)
        assert {b.dtype for b in loaded.buffers()} == {dtype}

    def test_ordinary_folder(self, model, tmp_path):
        transformers = pytest.importorskip("transformers")
        save(model, tmp_path / "m", format="huggingface", recipe={"method": "magnitude"})
        loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
        assert same(model, loaded)
        assert json.loads((tmp_path / "m" / "recipe.json").read_text()) == {"method": "magnitude"}
        with pytest.raises(BadInput, match="from_pretrained"):
            load(tmp_path / "m")

    def test_a_class_of_the_users_own_needs_its_factory(self, model, tmp_path):
        class LlamaForCausalLM(type(model)):  # same name as transformers' own, another class
            pass

        model.__class__ = LlamaForCausalLM
        save(model, tmp_path / "m")
        with pytest.raises(BadInput, match="pass factory="):
            load(tmp_path / "m")
        assert same(load(tmp_path / "m", lambda: LlamaForCausalLM(model.config)), model)
