"""From a model to a smaller file that onnxruntime runs, through the command line: U-Net, Llama, Swin, and files of others."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import secateurs as sc
from benchmarks.nets.attention import Swin
from benchmarks.nets.maps import UNet
from secateurs.apply.masking import masked_model
from secateurs.apply.onnx.cutting import masked
from secateurs.graph import trace
from secateurs.graph.onnx import trace_onnx

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
NETS = "from benchmarks.nets.attention import Swin\nfrom benchmarks.nets.maps import UNet\n"


@pytest.fixture
def nets(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the weights of a U-Net and of a Swin in it, and ``nets3.py`` that builds them."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    (here / "nets3.py").write_text(NETS)
    torch.manual_seed(0)
    save_file(UNet().state_dict(), here / "unet.safetensors")
    save_file(Swin().state_dict(), here / "swin.safetensors")
    return here


def run(path: str, *inputs: Any) -> Any:
    """What onnxruntime makes of the file."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip((value.name for value in session.get_inputs()), map(np.asarray, inputs), strict=True)))[0]


def size(path: str) -> int:
    return Path(path).stat().st_size


def weights(path: str) -> int:
    """Entries of all initializers of floats."""
    return sum(int(np.prod(value.dims)) for value in onnx.load(path).graph.initializer if value.data_type == 1)


def loaded(build: Callable[[], nn.Module], path: str) -> nn.Module:
    return sc.load(path, build).eval()


def same(ours: Any, theirs: Any) -> bool:
    theirs = theirs.detach().numpy() if isinstance(theirs, Tensor) else theirs
    return bool(np.abs(ours - theirs).max() <= 1e-5 * max(1.0, np.abs(theirs).max()))


def test_a_unet(nets: Path, as_json) -> None:
    given = ("--factory", "nets3:UNet", "--input", "1x3x32x32")
    told = as_json("prune", "unet.safetensors", *given, "--structure", "channels", "--flops", 0.5, "--out", "half")
    as_json("export", "unet.safetensors", *given, "--format", "onnx", "--out", "dense.onnx")
    exported = as_json("export", "half", *given, "--format", "onnx", "--out", "half.onnx")
    assert told["verified"]["ok"] and exported["verified"]["ok"] and exported["stored_bytes"] == size("half.onnx")
    dense = UNet().eval()
    dense.load_state_dict(load_file("unet.safetensors"))
    keeps = sc.GroupPlan.load("half").keeps
    assert same(run("dense.onnx", IMAGE), dense(IMAGE))
    assert same(run("half.onnx", IMAGE), masked_model(dense, trace(dense, IMAGE), keeps)(IMAGE))
    assert same(run("half.onnx", IMAGE), loaded(UNet, "half")(IMAGE))
    assert size("half.onnx") < 0.6 * size("dense.onnx") and weights("half.onnx") < 0.5 * weights("dense.onnx")


def test_a_llama_with_grouped_queries(nets: Path, as_json) -> None:
    """Six query heads over two of keys and values: queries leave inside of their groups, or whole groups go."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 6}
    dense = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=40, num_key_value_heads=2, **sizes)).eval()
    dense.save_pretrained("tiny")
    told = as_json("prune", "tiny", "--structure", "heads,neurons", "--params", 0.7, "--out", "small")
    assert {row["kind"] for row in told["groups"]} == {"kv-heads", "heads", "neurons", ""}
    for folder in ("tiny", "small"):
        as_json("export", folder, "--format", "onnx", "--out", f"{folder}.onnx")
    ids = torch.randint(3, 40, (2, 16), generator=torch.Generator().manual_seed(2))
    graph = trace(dense, {"input_ids": ids, "use_cache": False})
    zeroed = masked_model(dense, graph, sc.GroupPlan.load("small").keeps)
    assert same(run("tiny.onnx", ids), dense(ids).logits)
    assert same(run("small.onnx", ids), zeroed(ids).logits) and same(run("small.onnx", ids), sc.load("small")(ids).logits)
    assert size("small.onnx") < size("tiny.onnx") and weights("small.onnx") < 0.8 * weights("tiny.onnx")


def test_a_swin_of_which_only_the_program_is_smaller(nets: Path, as_json, command) -> None:
    """Its code computes the scale of attention from the width: no attribute makes it right with fewer heads."""
    given = ("prune", "swin.safetensors", "--factory", "nets3:Swin", "--input", "1x3x32x32",
             "--structure", "heads,neurons", "--params", 0.7)  # fmt: skip
    refused = command(*given, "--out", "small")
    assert refused.exit_code == 2 and not (nets / "small").exists()
    assert "exported program only" in refused.stderr and "--format onnx" in refused.stderr
    told = as_json(*given, "--format", "onnx", "--out", "small.onnx")
    as_json("plan", *given[1:], "--out", "planned")
    as_json("export", "swin.safetensors", *given[2:6], "--format", "onnx", "--out", "dense.onnx")
    assert told["verified"]["ok"] and "onnxruntime" in told["verified"]["checks"][-1]["name"]
    dense = Swin().eval()
    dense.load_state_dict(load_file("swin.safetensors"))
    zeroed = masked_model(dense, trace(dense, IMAGE), sc.GroupPlan.load("planned").keeps)
    assert same(run("dense.onnx", IMAGE), dense(IMAGE)) and same(run("small.onnx", IMAGE), zeroed(IMAGE))
    assert size("small.onnx") < 0.8 * size("dense.onnx") and weights("small.onnx") < 0.8 * weights("dense.onnx")


def torchscript(path: Path) -> None:
    """By torch's exporter of before, which folds batch norms into the convolutions before them; any batch."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(UNet().eval(), (IMAGE,), str(path), dynamo=False, opset_version=13, input_names=["image"],
                          dynamic_axes={"image": {0: "batch"}})  # fmt: skip


def keras(path: Path) -> None:
    """As tf2onnx writes a Keras classifier: channels last with a Transpose around every convolution, batch norm beside it,
    dense layers as MatMul of ``[inputs, outputs]`` and Add, a Gemm of a transposed weight, softmax at the end."""
    draw = np.random.default_rng(0)
    node, helper = onnx.helper.make_node, onnx.helper
    shapes = {"k1": (8, 3, 3, 3), "k2": (16, 8, 3, 3), "gamma": (8,), "beta": (8,), "mean": (8,), "var": (8,),
              "w1": (16, 12), "b1": (12,), "w2": (5, 12), "b2": (5,)}  # fmt: skip
    initial = {name: draw.uniform(0.1, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        node("Transpose", ["x"], ["x1"], "model/conv2d/Conv2D__6", perm=[0, 3, 1, 2]),
        node("Conv", ["x1", "k1"], ["c1"], "model/conv2d/Conv2D", auto_pad="SAME_UPPER", strides=[2, 2]),
        node("BatchNormalization", ["c1", "gamma", "beta", "mean", "var"], ["n1"], "model/batch_normalization", epsilon=1e-3),
        node("Relu", ["n1"], ["r1"], "model/re_lu/Relu"),
        node("Transpose", ["r1"], ["t1"], "model/re_lu/Relu__8", perm=[0, 2, 3, 1]),
        node("Transpose", ["t1"], ["t2"], "model/conv2d_1/Conv2D__9", perm=[0, 3, 1, 2]),
        node("Conv", ["t2", "k2"], ["c2"], "model/conv2d_1/Conv2D", auto_pad="SAME_UPPER"),
        node("Relu", ["c2"], ["r2"], "model/re_lu_1/Relu"),
        node("GlobalAveragePool", ["r2"], ["pool"], "model/global_average_pooling2d/Mean"),
        node("Transpose", ["pool"], ["last"], "model/global_average_pooling2d/Mean__12", perm=[0, 2, 3, 1]),
        node("Reshape", ["last", "flat"], ["f"], "model/flatten/Reshape"),
        node("MatMul", ["f", "w1"], ["d1"], "model/dense/MatMul"),
        node("Add", ["d1", "b1"], ["a1"], "model/dense/BiasAdd"),
        node("Relu", ["a1"], ["r3"], "model/dense/Relu"),
        node("Gemm", ["r3", "w2", "b2"], ["logits"], "model/dense_1/MatMul", transB=1),
        node("Softmax", ["logits"], ["y"], "model/dense_1/Softmax", axis=-1),
    ]
    values = [helper.make_tensor_value_info(name, 1, ["batch", *rest]) for name, rest in (("x", [16, 16, 3]), ("y", [5]))]
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in initial.items()]
    stored.append(onnx.numpy_helper.from_array(np.array([-1, 16]), "flat"))
    graph = helper.make_graph(nodes, "tf2onnx", values[:1], values[1:], stored)
    made = helper.make_model(graph, producer_name="tf2onnx", opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made)
    onnx.save(made, path)


@pytest.mark.parametrize(("write", "what", "shape"), [
    (torchscript, ("--structure", "channels", "--flops", "0.5"), (3, 3, 32, 32)),
    (keras, ("--structure", "channels,neurons", "--params", "0.6"), (3, 16, 16, 3)),
])  # fmt: skip
def test_a_file_of_another_exporter(nets: Path, as_json, write, what, shape) -> None:
    write(nets / "dense.onnx")
    as_json("plan", "dense.onnx", *what, "--out", "planned")
    told = as_json("prune", "dense.onnx", *what, "--out", "small.onnx")
    assert told["verified"]["ok"] and told["after"]["parameters"] < 0.6 * told["before"]["parameters"]
    onnx.save(masked(trace_onnx(nets / "dense.onnx"), sc.GroupPlan.load("planned").keeps), nets / "zeroed.onnx")
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    assert run("small.onnx", x).shape == run("dense.onnx", x).shape and same(run("small.onnx", x), run("zeroed.onnx", x))
    assert size("small.onnx") < size("dense.onnx") and weights("small.onnx") <= 0.6 * weights("dense.onnx")


def test_what_a_person_reads(nets: Path, command) -> None:
    given = ("unet.safetensors", "--factory", "nets3:UNet", "--input", "1x3x32x32", "--structure", "channels", "--ratio", 0.5)
    shown = command("prune", *given, "--format", "onnx", "--out", "half.onnx")
    assert shown.exit_code == 0 and shown.stderr == ""
    lines = shown.stdout.splitlines()
    assert len([line for line in lines if line.startswith("ok: outputs equal")]) == 4
    assert any(line.startswith("ok: onnxruntime's outputs equal") for line in lines) and lines[-1].startswith("written")
    again = command("prune", "half.onnx", "--structure", "channels", "--ratio", 0.5, "--out", "quarter.onnx")
    assert again.exit_code == 0 and again.stderr == "" and "not measured" in again.stdout


def test_sizes_that_a_file_leaves_open_are_told(nets: Path, command) -> None:
    """Multiply-adds depend on them."""
    keras(nets / "k.onnx")
    shown = command("plan", "k.onnx", *CHANNELS)
    assert "counted on" in shown.stdout and "x: batch" in shown.stdout
    assert "counted on" not in command("plan", "k.onnx", *CHANNELS, "--input", "1x16x16x3").stdout


CHANNELS = ("--structure", "channels", "--ratio", "0.5")


@pytest.mark.parametrize(("words", "says"), [
    (["prune", "k.onnx", "--sparsity", "0.5", "--out", "o.onnx"], "--structure channels --flops 0.5"),
    (["prune", "k.onnx", *CHANNELS, "--out", "o"], "--out 'o': an ONNX model is one file, name it .onnx"),
    (["prune", "k.onnx", *CHANNELS, "--out", "k.onnx"], "exists: give another name, or add --overwrite"),
    (["prune", "k.onnx", *CHANNELS, "--out", "no/o.onnx"], "there is no folder 'no'"),
    (["prune", "k.onnx", *CHANNELS, "--out", "o.onnx", "--calibration", "a.txt"], "--calibration says nothing of an ONNX file"),
    (["prune", "k.onnx", *CHANNELS, "--out", "o.onnx", "--format", "huggingface"], "--format says nothing of an ONNX file"),
    (["prune", "k.onnx", *CHANNELS, "--criterion", "taylor", "--out", "o.onnx"], "holds no backward pass"),
    (["plan", "k.onnx", *CHANNELS, "--factory", "a:b"], "--factory says nothing of an ONNX file"),
    (["plan", "k.onnx", *CHANNELS, "--input", "picture=1x16x16x3"], "the model takes x"),
    (["verify", "k.onnx"], "is an ONNX file, which holds no plan"),
    (["advise", "k.onnx"], "secateurs prune and secateurs plan take one"),
    (["inspect", "k.onnx"], "secateurs prune and secateurs plan take one"),
    (["export", "k.onnx", "--out", "o"], "--format onnx takes any MODEL"),
    (["export", "unet.safetensors", "--out", "o", "--format", "onx"], "use one of secateurs, huggingface, onnx"),
    (["export", "unet.safetensors", "--out", "o", "--format", "onnx"], "name it .onnx"),
    (["prune", "unet.safetensors", "--factory", "nets3:UNet", "--sparsity", "0.5", "--format", "onnx", "--out", "o.onnx"],
     "use one of secateurs, huggingface"),
])  # fmt: skip
def test_bad_input_is_told_and_nothing_written(nets: Path, command, words, says) -> None:
    keras(nets / "k.onnx")
    before = {path: path.stat().st_mtime_ns for path in nets.iterdir()}
    result = command(*words)
    assert result.exit_code == 2 and says in result.stderr, result.stderr
    assert {path: path.stat().st_mtime_ns for path in nets.iterdir() if path.name != "__pycache__"} == {
        path: when for path, when in before.items() if path.name != "__pycache__"
    }
