"""Networks as exporters write them: every group shuffled and cut, by both exporters of PyTorch."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from benchmarks.nets.attention import GroupedQuery, Swin, ViT
from benchmarks.nets.maps import UNet
from benchmarks.nets.sequences import Tagger
from secateurs.train.onnx_file import prune_onnx
from tests.graph.onnx.building import build, check, w


class Shortcut(nn.Module):
    """A residual stage whose shortcut drops every other pixel and pads channels with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.outer = nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.Conv2d(6, 12, 3, padding=1)
        self.out = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        left = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        x = torch.relu(left + self.outer(torch.relu(self.inner(x))))
        return self.out(x.mean((2, 3)))


def old_export(model: nn.Module, example: Tensor, path: Path, axes: dict[int, str]) -> Path:
    """By TorchScript: shape arithmetic and folded batch norms."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(), (example,), path, dynamo=False, opset_version=14, input_names=["x"], dynamic_axes={"x": axes}
        )
    return path


def new_export(model: nn.Module, example: Tensor, dynamic: dict[int, Any]) -> Any:
    """By torch.export."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        done = torch.onnx.export(model.eval(), (example,), dynamo=True, dynamic_shapes=(dynamic,), verbose=False)
    assert done is not None
    return done.model_proto


def kinds(graph: Any) -> dict[str, int]:
    """How many prunable groups there are of each kind."""
    found: dict[str, int] = {}
    for group in graph.prunable():
        found[group.kind] = found.get(group.kind, 0) + 1
    return found


def test_residual_block_with_padded_shortcut(tmp_path: Path) -> None:
    graph = check(old_export(Shortcut(), torch.randn(2, 3, 8, 8), tmp_path / "net.onnx", {0: "n", 2: "h", 3: "w"}), ends=False)
    assert sorted(group.size for group in graph.prunable()) == [2, 2, 6, 8]


def test_u_net(tmp_path: Path) -> None:
    path = old_export(UNet(), torch.randn(2, 3, 16, 16), tmp_path / "net.onnx", {0: "n", 2: "h", 3: "w"})
    done = prune_onnx(path, "channels", ratio=0.3)
    assert done.verification.ok and done.plan.after.parameters < 0.7 * done.plan.before.parameters
    assert len(done.verification.checks) == 5  # other sizes too


@pytest.mark.slow
def test_grouped_queries() -> None:
    model = GroupedQuery()
    graph = check(new_export(model, example_of(model), {0: torch.export.Dim("n")}), ends=False)
    assert kinds(graph)["kv-heads"] >= 1 and kinds(graph)["neurons"] >= 1


def test_windows_and_merged_patches(tmp_path: Path) -> None:
    path = old_export(Swin(), torch.randn(2, 3, 32, 32), tmp_path / "net.onnx", {0: "n"})
    done = prune_onnx(path, structures=["heads", "neurons"], params=0.7, scope="kind")
    assert done.verification.ok and {entry.kind for entry in done.plan.entries} == {"heads", "neurons"}


@pytest.mark.slow
def test_every_group_of_windows_and_merged_patches(tmp_path: Path) -> None:
    graph = check(old_export(Swin(), torch.randn(2, 3, 32, 32), tmp_path / "net.onnx", {0: "n"}), ends=False)
    assert kinds(graph)["heads"] >= 1 and kinds(graph)["neurons"] >= 1


def test_vision_transformer(tmp_path: Path) -> None:
    model = ViT()
    graph = check(old_export(model, torch.randn(2, 3, 32, 32), tmp_path / "net.onnx", {0: "n"}), ends=False)
    assert kinds(graph)["heads"] >= 1 and kinds(graph)["neurons"] >= 1


def example_of(model: nn.Module) -> Tensor:
    """Words, if it has a vocabulary."""
    words = next((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), None)
    return torch.randint(0, words, (2, 8)) if words else torch.randn(2, 8, 16)


def test_recurrent_tagger(tmp_path: Path) -> None:
    model = Tagger()
    graph = check(old_export(model, example_of(model), tmp_path / "net.onnx", {0: "n"}), ends=False)
    assert kinds(graph)["hidden"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("model", [Shortcut, UNet], ids=["residual", "u-net"])
def test_images_by_the_new_exporter(model: Any) -> None:
    check(new_export(model(), torch.randn(2, 3, 16, 16), {0: torch.export.Dim("n")}), ends=False)


@pytest.mark.slow
def test_llama_by_the_new_exporter() -> None:
    """Rotary pairs, grouped queries, RMS norms written out, a mask that is computed."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        use_cache=False,
        attn_implementation="eager",
    )
    inner = transformers.LlamaForCausalLM(config)

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, ids: Tensor) -> Tensor:
            return self.inner(ids).logits

    sizes = {0: torch.export.Dim("n"), 1: torch.export.Dim("s")}
    graph = check(new_export(Logits(), torch.randint(0, 50, (2, 9)), sizes), ends=False)
    assert kinds(graph) == {"width": 1, "head-dims": 2, "kv-heads": 1, "heads": 1, "neurons": 1}


def test_an_operator_of_another_domain_stays() -> None:
    """A fused operator without a rule freezes what it touches and is named; the rest can still go."""
    nodes = [
        ("MatMul", "x a", "h"),
        ("Relu", "h", "r"),
        ("MatMul", "r b", "i"),
        ("com.microsoft.Inverse", "i", "j"),
        ("MatMul", "j c", "y"),
    ]
    model = build(nodes, ("n", 3, 3), a=w(3, 5), b=w(5, 3), c=w(3, 3))
    graph = check(model)
    assert [group.name for group in graph.prunable()] == ["a:1"]
    assert "no rule for com.microsoft.Inverse" in {frozen.reason for frozen in graph.frozen}
