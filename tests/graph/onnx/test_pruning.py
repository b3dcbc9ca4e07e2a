"""ONNX files pruned whole: from exporters and by hand, to budgets, with the proof, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

pytest.importorskip("onnx")

from secateurs.apply.onnx import cut, verify_cut
from secateurs.cli.onnx_file import plan_file, prune_file
from secateurs.errors import BadInput, BrokenPromise
from secateurs.graph.onnx import trace_onnx, weights
from secateurs.recipe import Recipe
from secateurs.train.onnx_file import plan_onnx, prune_onnx
from tests.graph.onnx.building import build, i, onnx, w

ort = pytest.importorskip("onnxruntime")


def mlp(width: int = 8) -> Any:
    """As a converter for scikit-learn writes it: MatMul and Add, and names unlike PyTorch's."""
    nodes = [
        ("MatMul", "x coefficient", "mul_result"),
        ("Add", "mul_result intercepts", "add_result"),
        ("Relu", "add_result", "next_activations"),
        ("MatMul", "next_activations coefficient1", "mul_result1"),
        ("Add", "mul_result1 intercepts1", "y"),
    ]
    return build(nodes, ("n", 4), 15, coefficient=w(4, width), intercepts=w(width), coefficient1=w(width, 3), intercepts1=w(3))


def shapes(model: Any) -> dict[str, list[int]]:
    return {proto.name: list(proto.dims) for proto in model.graph.initializer}


def test_a_file_becomes_a_smaller_one(tmp_path: Path) -> None:
    onnx.save(mlp(), tmp_path / "mlp.onnx")
    before = (tmp_path / "mlp.onnx").read_bytes()
    done = prune_onnx(
        tmp_path / "mlp.onnx", "channels", structures=["neurons"], structure=None, ratio=0.5, out=tmp_path / "small.onnx"
    )
    assert (tmp_path / "mlp.onnx").read_bytes() == before
    small = onnx.load(tmp_path / "small.onnx")
    assert shapes(small) == {"coefficient": [4, 4], "intercepts": [4], "coefficient1": [4, 3], "intercepts1": [3]}
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    kept = done.plan.keeps["coefficient:1"]
    a, b = w(4, 8)[:, kept], w(8, 3)[kept]
    expected = np.maximum(x @ a + w(8)[kept], 0) @ b + w(3)
    assert np.allclose(ort.InferenceSession(str(tmp_path / "small.onnx")).run(None, {"x": x})[0], expected, atol=1e-5)


def test_magnitude_takes_the_smallest() -> None:
    """The score of a neuron is the squared norm of its column, its row; the bias has no say."""
    done = prune_onnx(mlp(), structures=["neurons"], ratio=0.25)
    scores = (w(4, 8) ** 2).sum(0) + (w(8, 3) ** 2).sum(1)
    assert done.plan.keeps["coefficient:1"].tolist() == sorted(np.argsort(-scores)[:6].tolist())


def test_counts_are_those_planned() -> None:
    planned = plan_onnx(mlp(), structures=["neurons"], flops=0.5)
    assert (planned.before.parameters, planned.before.multiply_adds, planned.before.bytes) == (67, 2 * 56, 268)
    assert planned.after.multiply_adds == 2 * 28 and planned.after.parameters == 3 + 4 * 8
    done = prune_onnx(mlp(), structures=["neurons"], flops=0.5)
    assert sum(np.prod(shape) for shape in shapes(done.model).values()) == planned.after.parameters


@pytest.mark.parametrize("how", [{"params": 0.6}, {"bytes": 0.7, "criterion": "random", "seed": 2}, {"ratio": 0.5, "steps": 3}])
def test_budgets(how: dict[str, Any]) -> None:
    done = prune_onnx(mlp(), structures=["neurons"], **how)
    again = prune_onnx(mlp(), structures=["neurons"], **how)
    assert done.verification.ok and done.plan.after.parameters < done.plan.before.parameters
    assert done.model.SerializeToString() == again.model.SerializeToString()


def test_cutting_twice_is_cutting_once() -> None:
    graph = trace_onnx(mlp())
    once = cut(graph, {"coefficient:1": torch.tensor([0, 3, 7])})
    first = trace_onnx(cut(graph, {"coefficient:1": torch.tensor([0, 2, 3, 7])}))
    assert shapes(cut(first, {"coefficient:1": torch.tensor([0, 2, 3])})) == shapes(once)
    twice = weights(trace_onnx(cut(first, {"coefficient:1": torch.tensor([0, 2, 3])})))
    assert all(torch.equal(twice[name], value) for name, value in weights(trace_onnx(once)).items())


@hypothesis.settings(max_examples=15)
@hypothesis.given(parts=st.lists(st.integers(2, 4), min_size=2, max_size=3), data=st.data())
def test_any_parts_and_any_keeps(parts: list[int], data: st.DataObject) -> None:
    """However a width is split, reordered and sliced again, any indices may stay, together or one group alone."""
    names = [f"p{k}" for k in range(len(parts))]
    nodes = [
        ("MatMul", "x a", "h"),
        ("Split", "h s", " ".join(names), {"axis": 1}),
        ("Concat", " ".join(names[::-1]), "c", {"axis": 1}),
        ("Slice", "c begin end one", "d"),
        ("Reshape", "d to", "e"),
        ("Flatten", "e", "g"),
        ("MatMul", "g b", "y"),
    ]
    left = sum(parts) - parts[0]
    numbers = {"s": i(*parts), "begin": i(0), "end": i(left), "one": i(1), "to": i(0, 1, -1)}
    graph = trace_onnx(build(nodes, ("n", 3), **numbers, a=w(3, sum(parts)), b=w(left, 2)))
    groups = {group.name: group for group in graph.prunable() if any(piece.role == "in" for piece in group.slices)}
    assert sorted(group.size for group in groups.values()) == sorted(parts[1:])
    kept = {name: sorted(data.draw(st.sets(st.integers(0, group.size - 1), min_size=1))) for name, group in groups.items()}
    keeps = {name: torch.tensor(indices) for name, indices in kept.items()}
    verify_cut(graph, keeps, cut(graph, keeps)).require()


def test_a_wrong_cut_is_noticed() -> None:
    graph = trace_onnx(mlp())
    keeps, other = {"coefficient:1": torch.tensor([0, 1, 2])}, {"coefficient:1": torch.tensor([0, 1, 3])}
    with pytest.raises(BrokenPromise, match="outputs equal the masked model's"):
        verify_cut(graph, keeps, cut(graph, other)).require()


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs gradient, which an ONNX file cannot give"):
        prune_onnx(mlp(), "taylor", structures=["neurons"], ratio=0.5)
    with pytest.raises(BadInput, match="whole structures can be removed"):
        prune_onnx(mlp(), "magnitude", sparsity=0.5)
    with pytest.raises(BadInput, match="has no heads that could go: it has groups of neurons"):
        prune_onnx(mlp(), "heads", ratio=0.5)
    with pytest.raises(BadInput, match="not measured layer by layer"):
        prune_onnx(mlp(), structures=["neurons"], latency=0.5)
    with pytest.raises(BadInput, match=r"name it \.onnx"):
        prune_onnx(mlp(), structures=["neurons"], ratio=0.5, out=tmp_path / "small")
    (tmp_path / "there.onnx").write_bytes(b"")
    with pytest.raises(BadInput, match="exists"):
        prune_onnx(mlp(), structures=["neurons"], ratio=0.5, out=tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == b""


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(mlp(), tmp_path / "mlp.onnx")
    recipe = Recipe.from_dict({"method": "magnitude", "structures": ["neurons"], "ratio": 0.5})
    plan_file(tmp_path / "mlp.onnx", recipe, ["x=3x4"], tmp_path / "planned", True)
    planned = json.loads(capsys.readouterr().out)
    assert planned["before"]["multiply_adds"] == 3 * 56 and (tmp_path / "planned" / "plan.json").is_file()
    assert prune_file(tmp_path / "mlp.onnx", recipe, ["3x4"], tmp_path / "small.onnx", False, True)
    told = json.loads(capsys.readouterr().out)
    assert told["verified"]["ok"] and told["stored_bytes"] == (tmp_path / "small.onnx").stat().st_size
    assert told["after"] == planned["after"]
    assert prune_file(tmp_path / "mlp.onnx", recipe, [], tmp_path / "small.onnx", True, False)
    assert "time the two files in onnxruntime" in capsys.readouterr().out
    with pytest.raises(BadInput, match="the model takes x"):
        prune_file(tmp_path / "mlp.onnx", recipe, ["z=3x4"], tmp_path / "other.onnx", False, True)
