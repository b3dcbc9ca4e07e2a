"""PERP's page runs as it stands; its recipe's vision row: a network of convolutions, blocks and parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.papers.weights.perp import Perp
from secateurs.train.retraining import How

PAGE = Path(__file__).parents[3] / "docs" / "methods" / "perp.md"


class Net(nn.Module):
    """Convolutions with batch norm, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.conv, self.head = nn.Conv2d(24, 24, 3, padding=1), nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(8, 3, 6, 6, generator=generator).cumsum(-1) for _ in range(3)]
    return [(x, x.mean((1, 2, 3)).mul(4).long() % 4) for x in inputs]


def test_the_page_runs() -> None:
    torch.manual_seed(0)
    names = {"model": Net(), "batches": batches()}
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S):
        exec(compile(code, str(PAGE), "exec"), names)
    assert type(names["retrained"]) is Net and names["pruned"].recipe.method == "perp"


@pytest.mark.parametrize("adapter", ["mask-lora", "scale-lora"])
def test_convolutions_are_reconstructed(adapter: str) -> None:
    torch.manual_seed(0)
    model = Net().eval()
    done = sc.prune(model, "perp", sparsity=0.6, calibration=batches(), types=["conv"],
                    options={"adapter": adapter, "rank": 4, "steps": 40, "lr": 0.01})  # fmt: skip
    rows = {row["name"]: row for row in done.report[:-1]}
    assert rows["conv.weight"]["block_error"] < 0.9 * rows["conv.weight"]["block_error_pruned"]
    assert sc.verify(done.model, done.plan).ok
    kept = done.plan.masks["conv.weight"]
    assert torch.count_nonzero(done.model.conv.weight != model.conv.weight) > kept.sum() // 2 > 0


def test_its_options_say_what_trains() -> None:
    wanted = Perp({"norms": False, "adapter": "scale-lora", "rank": 4, "dropout": 0.1, "steps": 7, "lr": 0.01})
    told = wanted.block_retraining()
    assert told.how == How(("biases",), "scale-lora", 4, 32, 0.1) and (told.steps, told.lr, told.warmup) == (7, 0.01, 0.1)
    assert Perp({"adapter": "none"}).block_retraining().how.adapter is None
