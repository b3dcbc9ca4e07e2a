"""PyTorch modules as ONNX files that onnxruntime was seen to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateurs.errors import BadInput, BrokenPromise
from secateurs.formats.onnx import export_onnx

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Two(nn.Module):
    """Two inputs by name, two outputs, a dropout that must not drop."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.drop = nn.Linear(3, 5), nn.Linear(4, 5), nn.Dropout(0.9)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        total = self.drop(self.a(left) + self.b(right))
        return total.relu(), {"mean": total.mean(-1)}


def test_outputs_are_those_of_the_module(tmp_path: Path) -> None:
    model = Two().train()
    example = {"left": torch.randn(2, 3), "right": torch.randn(2, 4)}
    sizes = {name: {0: torch.export.Dim("n")} for name in example}
    done = export_onnx(model, example, tmp_path / "two.onnx", dynamic=sizes)
    assert model.training and done.difference <= done.tolerance == 1e-4 and done.opset >= 18
    other = {"left": torch.randn(5, 3), "right": torch.randn(5, 4)}
    found = ort.InferenceSession(str(done.path)).run(None, {name: value.numpy() for name, value in other.items()})
    first, more = model.eval()(**other)
    assert np.allclose(found[0], first.detach(), atol=1e-5) and np.allclose(found[1], more["mean"].detach(), atol=1e-5)


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    for path in (tmp_path / "net.onnx", tmp_path / "net", tmp_path):
        with pytest.raises(BadInput, match=r"exists|name it"):
            export_onnx(nn.Linear(3, 2), torch.randn(1, 3), path)


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(BadInput, match="this Branch cannot be exported to ONNX"):
        export_onnx(Branch(), torch.randn(3), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_wrong_outputs_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def run(self, *_: Any) -> list[Any]:
            return [np.zeros((1, 2), dtype=np.float32)]

    monkeypatch.setattr(ort, "InferenceSession", Session)
    with pytest.raises(BrokenPromise, match="nothing was written"):
        export_onnx(nn.Linear(3, 2), torch.randn(1, 3), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    from secateurs.cli.onnx_file import export_file
    from secateurs.cli.opening import Source

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a_net.py").write_text("from torch import nn\n\ndef build():\n    return nn.Linear(3, 2)\n")
    save_file(nn.Linear(3, 2).state_dict(), tmp_path / "net.safetensors")
    assert export_file(Source(tmp_path / "net.safetensors", "a_net:build"), ["4x3"], tmp_path / "net.onnx", False, False)
    assert "onnxruntime's outputs equal the module's" in capsys.readouterr().out
    onnx.checker.check_model(onnx.load(tmp_path / "net.onnx"))


def test_the_file_tells_nothing_of_the_machine_that_made_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The exporter notes a stack trace with paths at every node, and prints what it lacks."""
    export_onnx(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(1, 3), tmp_path / "net.onnx")
    written = (tmp_path / "net.onnx").read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in written and b"stack_trace" not in written
    assert capfd.readouterr() == ("", "")
