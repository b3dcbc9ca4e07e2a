"""A small Llama on disk and the real command in a process of its own, for tests that kill it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

import secateurs
from tests.train.large import write_llama, write_text

SIZES = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 4, "vocab_size": 256,
         "max_position_embeddings": 128}  # fmt: skip


def write_model(folder: Path, **sizes: int) -> None:
    """``model`` with its tokenizer, and ``text.txt``."""
    write_llama(folder / "model", **SIZES | sizes)
    write_text(folder / "text.txt", 4000)


class Command:
    """``secateurs prune model ... --out OUT`` in ``folder``."""

    def __init__(self, folder: Path, *flags: str):
        self.folder, self.flags = folder, flags

    def start(self, out: str) -> subprocess.Popen[bytes]:
        """The process, its output in ``OUT.log``."""
        words = [sys.executable, "-m", "secateurs.cli", "prune", "model", "--calibration", "text.txt", "--samples", "16",
                 "--length", "64", *self.flags, "--out", out]  # fmt: skip
        source = str(Path(secateurs.__file__).parents[1])
        with (self.folder / f"{out}.log").open("ab") as log:
            return subprocess.Popen(words, cwd=self.folder, stdout=log, stderr=log,
                                    env=os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"})  # fmt: skip

    def run(self, out: str) -> None:
        """To its end, which must be a good one."""
        code = self.start(out).wait(300)
        assert code == 0, (self.folder / f"{out}.log").read_text()

    def killed(self, out: str, sign: Callable[[], bool], delay: float) -> bool:
        """Kill it ``delay`` seconds after ``sign`` is true; False where it was done before that."""
        process = self.start(out)
        try:
            while not sign() and process.poll() is None:
                time.sleep(0.001)
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                return True
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0, (self.folder / f"{out}.log").read_text()
        return False


def finished(folder: Path, out: str) -> int:
    """How many lines of progress the command has printed, of this run and the ones before."""
    log = folder / f"{out}.log"
    return log.read_bytes().count(b"block ") if log.exists() else 0


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of every file, by file and name, as bytes."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, value in safetensors.torch.load_file(file).items():
            found[f"{file.name}:{name}"] = value.reshape(-1).view(torch.uint8)
    return found


def same(a: Path, b: Path) -> bool:
    """Whether two folders hold the same tensors, to the bit."""
    mine, theirs = tensors(a), tensors(b)
    return mine.keys() == theirs.keys() and len(mine) > 20 and all(torch.equal(mine[name], theirs[name]) for name in mine)
