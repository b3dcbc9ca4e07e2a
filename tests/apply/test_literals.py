"""Every kind of literal in a traced program is rewritten: the smaller program is the masked one, operator by operator."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateurs.apply import shrink, verify_shrunk
from secateurs.apply.literals import blocks
from secateurs.errors import BadInput
from secateurs.graph import trace
from tests.apply import shrinkable as nets


class Between(nn.Module):
    """A convolution to 12 channels, an operator, and a convolution that reads what it gives."""

    def __init__(self, operator, channels):
        super().__init__()
        self.operator, self.first, self.last = operator, nn.Conv2d(3, 12, 1), nn.Conv2d(channels, 2, 1)

    def forward(self, x):
        return self.last(self.operator(self.first(x)))


class Fixed(nn.Module):
    """A constant order of channels."""

    def __init__(self, order):
        super().__init__()
        self.register_buffer("order", torch.tensor(order))

    def forward(self, x):
        return x[:, self.order]


class Centred(nn.Module):
    """A layer norm over the channels, written out."""

    def forward(self, x):
        x = x - x.mean(1, keepdim=True)
        return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5)


OPERATORS = {
    "split": (lambda x: torch.cat(x.split([4, 8], 1)[::-1], 1), 12),
    "chunk": (lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(), 6),
    "narrow": (lambda x: x.narrow(1, 3, 7), 7),
    "slice": (lambda x: x[:, 2:9], 7),
    "from the end": (lambda x: torch.cat([x[:, -5:], x[:, :-5]], 1), 12),
    "every second": (lambda x: x[:, 1::2], 6),
    "pad": (lambda x: F.pad(x, (1, 1, 0, 0, 2, 3)), 17),
    "tile": (lambda x: x.repeat(1, 3, 1, 1), 36),
    "interleave": (lambda x: x.repeat_interleave(2, 1), 24),
    "shuffle": (lambda x: x.view(len(x), 3, 4, 4, 4).transpose(1, 2).reshape(len(x), 12, 4, 4), 12),
    "pixels": (lambda x: F.pixel_shuffle(x, 2), 3),
    "unflatten": (lambda x: x.unflatten(1, (4, 3)).flatten(1, 2), 12),
    "order": (Fixed([5, 3, 1, 0, 2, 4, 11, 10, 9, 8, 7, 6]), 12),
    "zeros": (lambda x: torch.cat([x, x.new_zeros(len(x), 2, 4, 4)], 1), 14),
    "expand": (lambda x: x + torch.ones(12, 1, 1).expand(12, 4, 4) * x, 12),
    "group norm": (lambda x: F.group_norm(x, 3), 12),
    "layer norm": (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (12,)).permute(0, 3, 1, 2), 12),
    "rms norm": (lambda x: F.rms_norm(x.permute(0, 2, 3, 1), (12,)).permute(0, 3, 1, 2), 12),
    "mean": (lambda x: x * x.pow(2).mean(1, keepdim=True), 12),
    "written-out layer norm": (Centred(), 12),
    "glu": (lambda x: F.glu(x, 1), 6),
    "attention": (
        lambda x: F.scaled_dot_product_attention(*[x.flatten(2).transpose(1, 2)] * 3).transpose(1, 2).unflatten(2, (4, 4)), 12,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_the_smaller_program_is_the_masked_one(name):
    operator, channels = OPERATORS[name]
    model = Between(operator, channels).eval()
    graph = trace(model, torch.randn(2, 3, 4, 4))
    keeps = nets.keep(graph)
    if not keeps:
        assert any(g.frozen for g in graph.groups if g.slices[0].tensor.startswith("first")), "neither prunable nor frozen"
        return
    shrunk = shrink(model, graph, keeps)
    assert shrunk.parameters < sum(p.numel() for p in model.parameters())
    found = verify_shrunk(model, shrunk, graph, keeps)
    assert found.ok, [c for c in found.checks if not c.ok]


def test_blocks():
    assert blocks(torch.tensor([0, 1, 4, 5, 8, 9]), 12, 3, "norm") == 3  # two of four in each
    assert blocks(torch.tensor([0, 1, 2, 3, 8, 9, 10, 11]), 12, 3, "norm") == 2  # one of three gone
    with pytest.raises(BadInput, match=r"'norm' has 3 groups of channels, which would keep unequal numbers \[2, 1, 1\]"):
        blocks(torch.tensor([0, 1, 4, 8]), 12, 3, "norm")
