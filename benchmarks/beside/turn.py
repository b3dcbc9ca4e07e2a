"""One turn: a process that opens the model, prunes it, writes it, and prints what that took as JSON.

Run by :mod:`benchmarks.beside.run`, in the environment of the library it is told to use.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from secateurs.measure.process import PeakAnonymous, anonymous_bytes

Prune = Callable[[nn.Module, Tensor], nn.Module]
Said = argparse.Namespace
BLOCKS = "model.layers.*"


def secateurs(said: Said) -> Prune:
    """The library's own way."""
    import secateurs as sc

    amount: dict[str, Any] = {"structure": said.point} if ":" in said.point else {"sparsity": float(said.point)}
    how = {"compute": said.compute} if said.compute else {}

    def prune(model: nn.Module, ids: Tensor) -> nn.Module:
        batches = [{"input_ids": part} for part in ids.split(said.batch)]
        return sc.prune(model, said.method, calibration=batches, include=(BLOCKS,), inplace=True, **amount, **how).model

    return prune


def llm_compressor(said: Said) -> Prune:
    """llm-compressor's, on its sequential pipeline, which prunes a block before it measures the next, as its examples do."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier

    point = said.point
    amount: dict[str, Any] = {"sparsity": 0.5, "mask_structure": point} if ":" in point else {"sparsity": float(point)}
    kind = {"sparsegpt": SparseGPTModifier, "wanda": WandaPruningModifier}[said.method]
    recipe = kind(targets=["Linear"], ignore=["re:.*lm_head"], **amount)

    def prune(model: nn.Module, ids: Tensor) -> nn.Module:
        rows = {"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()}
        data = Dataset.from_dict(rows).with_format("torch")
        found: nn.Module = oneshot(model=model, dataset=data, recipe=recipe, max_seq_length=ids.shape[1], batch_size=said.batch,
                                   num_calibration_samples=len(ids), shuffle_calibration_samples=False,
                                   pipeline="sequential")  # fmt: skip
        return found

    return prune


LIBRARIES: dict[str, Callable[[Said], Prune]] = {"secateurs": secateurs, "llm-compressor": llm_compressor}


def main() -> int:
    """Take the turn."""
    said = _parser().parse_args()
    torch.set_num_threads(said.threads)
    from transformers import AutoModelForCausalLM

    prune = LIBRARIES[said.library](said)
    model = AutoModelForCausalLM.from_pretrained(said.model, local_files_only=True).eval()
    ids = load_file(said.windows)["input_ids"]
    held = anonymous_bytes()
    began = time.perf_counter()
    with PeakAnonymous() as memory:
        pruned = prune(model, ids)
    seconds = time.perf_counter() - began
    compressed = {"save_compressed": False} if said.library == "llm-compressor" else {}
    pruned.save_pretrained(said.out, **compressed)
    said.out.joinpath("turn.json").write_text(json.dumps({"seconds": seconds, "peak_bytes": memory.peak, "held_bytes": held}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=list(LIBRARIES))
    parser.add_argument("method")
    parser.add_argument("point", help="a share, or N:M")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--windows", type=Path, required=True, help="safetensors with input_ids")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compute", help="dtype of the library's passes, where it takes one")
    parser.add_argument("--batch", type=int, default=8, help="windows run at once")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
