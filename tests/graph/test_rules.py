"""Every operator rule, by brute force: a tiny network per operator, both oracles on every group, the groups it must have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.graph.checking import Net, check, sizes

torch.manual_seed(0)
L, C1, C2 = nn.Linear, nn.Conv1d, nn.Conv2d


def x(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def given(*layers: Any) -> dict[str, nn.Module]:
    return dict(zip("abcdefg", layers, strict=False))


class WrittenNorm(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, t: Tensor) -> Tensor:
        return self.weight * t * torch.rsqrt(t.pow(2).mean(-1, keepdim=True) + 1e-5)


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


def around(middle: Callable[[Tensor], Tensor], first: nn.Module, last: nn.Module) -> nn.Module:
    """Something between two layers."""
    return Net(lambda n, t: n.b(middle(n.a(t))), a=first, b=last)


# name -> (network, example, sizes of its prunable groups)
CASES: dict[str, tuple[nn.Module, Any, list[int]]] = {
    # products
    "linear": (chain(L(3, 5), L(5, 2)), x(2, 3), [5]),
    "linear without bias": (chain(L(3, 5, bias=False), L(5, 2)), x(2, 4, 3), [5]),
    "matmul with a parameter": (Net(lambda n, t: t @ n.w @ n.v, w=x(3, 5), v=x(5, 2)), x(2, 3), [5]),
    "matmul with a transposed one": (Net(lambda n, t: t @ n.w.t() @ n.v.T, w=x(5, 3), v=x(2, 5)), x(2, 3), [5]),
    "addmm": (Net(lambda n, t: torch.addmm(n.b, t, n.w) @ n.v, b=x(5), w=x(3, 5), v=x(5, 2)), x(2, 3), [5]),
    "mv": (Net(lambda n, t: n.a(t).mv(n.v), a=L(3, 5), v=x(5)), x(2, 3), [5]),
    "bmm of experts": (Net(lambda n, t: torch.bmm(torch.bmm(t, n.w), n.v), w=x(4, 3, 5), v=x(4, 5, 2)), x(4, 2, 3), [5]),
    "baddbmm": (Net(lambda n, t: torch.baddbmm(n.b, t, n.w) @ n.v, b=x(4, 1, 5), w=x(4, 3, 5), v=x(5, 2)), x(4, 2, 3), [5]),
    "einsum": (
        Net(lambda n, t: torch.einsum("bte,ef->btf", torch.einsum("btd,de->bte", t, n.w), n.v), w=x(3, 5), v=x(5, 2)),
        x(2, 4, 3),
        [5],
    ),
    "einsum of heads": (
        Net(
            lambda n, t: torch.einsum("...hd,hde->...e", torch.einsum("...c,chd->...hd", t, n.w), n.v),
            w=x(3, 2, 5),
            v=x(2, 5, 4),
        ),
        x(2, 4, 3),
        [2, 5],
    ),
    "cosine similarity": (Net(lambda n, t: F.cosine_similarity(n.a(t), n.b(t)), a=L(3, 5), b=L(3, 5)), x(2, 3), [5]),
    "outer product of two layers": (
        Net(lambda n, t: torch.einsum("bi,bj->bij", n.a(t), n.b(t)).flatten(1) @ n.v, **given(L(3, 2), L(3, 5)), v=x(10, 4)),
        x(2, 3),
        [2, 5],
    ),
    "bilinear pooling freezes": (
        Net(lambda n, t: torch.einsum("bi,bj->bij", n.a(t), n.a(t)).flatten(1) @ n.v, a=L(3, 4), v=x(16, 4)),
        x(2, 3),
        [],
    ),
    # convolutions
    "conv1d": (chain(C1(3, 5, 3), C1(5, 2, 1)), x(2, 3, 8), [5]),
    "conv2d": (chain(C2(3, 5, 3), C2(5, 2, 1)), x(2, 3, 8, 8), [5]),
    "conv2d of one image": (chain(C2(3, 5, 3), C2(5, 2, 1)), x(3, 8, 8), [5]),
    "conv2d same padding": (chain(C2(3, 5, 3, padding="same"), C2(5, 2, 1)), x(1, 3, 6, 6), [5]),
    "conv3d": (chain(nn.Conv3d(3, 5, 2), nn.Conv3d(5, 2, 1)), x(2, 3, 4, 4, 4), [5]),
    "depthwise": (chain(C2(3, 5, 1), C2(5, 5, 3, groups=5), C2(5, 2, 1)), x(1, 3, 6, 6), [5]),
    "depthwise with multiplier": (chain(C2(3, 5, 1), C2(5, 15, 3, groups=5), C2(15, 2, 1)), x(1, 3, 6, 6), [3, 5]),
    "grouped conv": (chain(C2(3, 6, 1), C2(6, 10, 3, groups=2), C2(10, 2, 1)), x(1, 3, 6, 6), [2, 3, 5]),
    "one output channel is not depthwise": (chain(C2(3, 4, 1), C2(4, 1, 1), C2(1, 2, 1)), x(1, 3, 4, 4), [4]),
    "transposed conv": (chain(C2(3, 5, 1), nn.ConvTranspose2d(5, 2, 2, 2)), x(1, 3, 4, 4), [5]),
    "transposed conv inside": (chain(nn.ConvTranspose2d(3, 5, 2, 2), C2(5, 2, 1)), x(1, 3, 4, 4), [5]),
    "grouped transposed conv": (
        chain(C2(3, 6, 1), nn.ConvTranspose2d(6, 10, 2, groups=2), C2(10, 2, 1)),
        x(1, 3, 4, 4),
        [2, 3, 5],
    ),
    # norms
    "batch norm": (chain(C2(3, 5, 1), nn.BatchNorm2d(5), C2(5, 2, 1)), x(2, 3, 4, 4), [5]),
    "batch norm of rows": (chain(L(3, 5), nn.BatchNorm1d(5), L(5, 2)), x(2, 3), [5]),
    "instance norm with running statistics": (
        chain(C2(3, 5, 1), nn.InstanceNorm2d(5, affine=True, track_running_stats=True), C2(5, 2, 1)),
        x(2, 3, 4, 4),
        [5],
    ),
    "layer norm": (chain(L(3, 5), nn.LayerNorm(5), L(5, 2)), x(2, 3), [5]),
    "layer norm over two dimensions": (
        Net(lambda n, t: n.c(n.b(n.a(t)).transpose(1, 2)), **given(C1(3, 5, 1), nn.LayerNorm([5, 4]), L(5, 2))),
        x(2, 3, 4),
        [5],
    ),
    "RMS norm": (chain(L(3, 5), nn.RMSNorm(5), L(5, 2)), x(2, 3), [5]),
    "RMS norm written out": (chain(L(3, 5), WrittenNorm(5), L(5, 2)), x(2, 3), [5]),
    "a mean that belongs to no norm freezes": (
        Net(lambda n, t: n.b(h := n.a(t)) * h.mean(-1, keepdim=True), **given(L(3, 5), L(5, 2))),
        x(2, 3),
        [],
    ),
    "standardised weights freeze": (
        Net(lambda n, t: F.linear(n.a(t), F.batch_norm(n.w[None], None, None, training=True)[0]), a=L(3, 5), w=x(4, 5)),
        x(2, 3),
        [],
    ),
    "group norm": (chain(C2(3, 6, 1), nn.GroupNorm(2, 6), C2(6, 2, 1)), x(2, 3, 4, 4), [2, 3]),
    "normalised rows": (around(lambda h: F.normalize(h, dim=-1), L(3, 5), L(5, 2)), x(2, 3), [5]),
    # element-wise
    "unary": (
        Net(lambda n, t: n.b(F.gelu(n.a(t)).sigmoid().neg().clamp(-1, 1).to(t.dtype)), **given(L(3, 5), L(5, 2))),
        x(2, 3),
        [5],
    ),
    "in place": (around(lambda h: h.relu_().add_(1), L(3, 5), L(5, 2)), x(2, 3), [5]),
    "residual": (Net(lambda n, t: n.c((h := n.a(t)) + n.b(h)), **given(L(3, 5), L(5, 5), L(5, 2))), x(2, 3), [5]),
    "a size of 1 does not couple": (
        Net(lambda n, t: n.c(n.a(t) * n.b(t)), **given(C2(3, 5, 1), C2(3, 1, 1), C2(5, 2, 1))),
        x(1, 3, 4, 4),
        [5],
    ),
    "squeeze and excitation": (
        Net(
            lambda n, t: n.d((h := n.a(t)) * n.c(n.b(h.mean((2, 3), keepdim=True)).relu()).sigmoid()),
            **given(C2(3, 6, 1), C2(6, 4, 1), C2(4, 6, 1), C2(6, 2, 1)),
        ),
        x(1, 3, 4, 4),
        [4, 6],
    ),
    "where": (Net(lambda n, t: n.c(torch.where(n.a(t) > 0, n.a(t), n.b(t))), **given(L(3, 5), L(3, 5), L(5, 2))), x(2, 3), [5]),
    "maximum of two": (Net(lambda n, t: n.c(torch.maximum(n.a(t), n.b(t))), **given(L(3, 5), L(3, 5), L(5, 2))), x(2, 3), [5]),
    "layer scale": (Net(lambda n, t: n.b(n.a(t) * n.s), s=x(5), **given(L(3, 5), L(5, 2))), x(2, 3), [5]),
    "PReLU per channel": (chain(C2(3, 5, 1), nn.PReLU(5), C2(5, 2, 1)), x(1, 3, 4, 4), [5]),
    "PReLU for all": (chain(C2(3, 5, 1), nn.PReLU(), C2(5, 2, 1)), x(1, 3, 4, 4), [5]),
    "GLU": (around(lambda h: F.glu(h), L(3, 10), L(5, 2)), x(2, 3), [5]),
    "chunk gating": (
        Net(lambda n, t: n.b((h := n.a(t).chunk(2, -1))[0] * h[1].sigmoid()), **given(L(3, 10), L(5, 2))),
        x(2, 3),
        [5],
    ),
    # parts
    "split": (
        Net(lambda n, t: n.b((h := n.a(t).split([2, 4], -1))[0]) + n.c(h[1]), **given(L(3, 6), L(2, 2), L(4, 2))),
        x(2, 3),
        [2, 4],
    ),
    "slice": (
        Net(lambda n, t: n.b((h := n.a(t))[:, :4]) + n.c(h[:, 2:]), **given(L(3, 6), L(4, 2), L(4, 2))),
        x(2, 3),
        [2, 2, 2],
    ),
    "slice with a step": (around(lambda h: h[:, ::2], L(3, 6), L(3, 2)), x(2, 3), [3]),
    "narrow": (around(lambda h: h.narrow(1, 1, 4), L(3, 6), L(4, 2)), x(2, 3), [4]),
    "select pins": (
        Net(lambda n, t: n.b(h := n.a(t)) * h[:, 1:2].sum() * h[:, 3].sum(), **given(L(3, 6), L(6, 2))),
        x(2, 3),
        [2],
    ),
    "unbind": (around(lambda h: sum(h.view(2, 3, 4).unbind(1)), L(3, 12), L(4, 2)), x(2, 3), [4]),
    "cat": (Net(lambda n, t: n.c(torch.cat([n.a(t), n.b(t)], -1)), **given(L(3, 4), L(3, 5), L(9, 2))), x(2, 3), [4, 5]),
    "cat with nothing": (around(lambda h: torch.cat([h[:, :0], h], -1), L(3, 5), L(5, 2)), x(2, 3), [5]),
    "view as complex numbers": (
        around(lambda h: torch.view_as_real(torch.view_as_complex(h.view(2, 5, 2)) * (1 + 2j)).flatten(1), L(3, 10), L(10, 2)),
        x(2, 3),
        [5],
    ),
    "cat of tokens": (
        Net(lambda n, t: n.b(torch.cat([n.k.expand(2, -1, -1), n.a(t)], 1)), k=x(1, 1, 5), **given(L(3, 5), L(5, 2))),
        x(2, 4, 3),
        [5],
    ),
    "stack": (Net(lambda n, t: n.c(torch.stack([n.a(t), n.b(t)], 1).sum(1)), **given(L(3, 5), L(3, 5), L(5, 2))), x(2, 3), [5]),
    "roll over space": (around(lambda h: h.roll((1, 1), (2, 3)), C2(3, 5, 1), C2(5, 2, 1)), x(1, 3, 4, 4), [5]),
    "roll over channels freezes": (around(lambda h: h.roll(1, 1), C2(3, 5, 1), C2(5, 2, 1)), x(1, 3, 4, 4), []),
    "flip of channels freezes": (around(lambda h: h.flip(1), C2(3, 5, 1), C2(5, 2, 1)), x(1, 3, 4, 4), []),
    "index of rows": (Net(lambda n, t: n.b(n.w[torch.tensor([0, 2])] * t), w=x(4, 5), b=L(5, 2)), x(2, 1), [5]),
    "index of channels freezes": (around(lambda h: h[:, torch.tensor([0, 2])], L(3, 5), L(2, 2)), x(2, 3), []),
    "index_select of channels freezes": (
        around(lambda h: h.index_select(1, torch.tensor([0, 2])), L(3, 5), L(2, 2)),
        x(2, 3),
        [],
    ),
    "gather over tokens": (
        Net(lambda n, t, i: n.b(n.a(t).gather(1, i.expand(-1, -1, 5))), **given(L(3, 5), L(5, 2))),
        (x(2, 4, 3), torch.zeros(2, 2, 1).long()),
        [5],
    ),
    "written slices": (around(lambda h: _written(h), L(3, 6), L(6, 2)), x(2, 3), [2, 4]),
    # views
    "flatten of a map": (around(lambda h: h.flatten(1), C2(3, 5, 1), L(80, 2)), x(2, 3, 4, 4), [5]),
    "flatten of a sequence": (around(lambda h: h.flatten(1), C1(3, 5, 1), L(20, 2)), x(2, 3, 4), [5]),
    "flatten with channels last": (
        around(lambda h: h.permute(0, 2, 3, 1).flatten(1), C2(3, 5, 1), L(80, 2)),
        x(2, 3, 4, 4),
        [5],
    ),
    "view into two factors": (
        around(lambda h: h.view(2, 3, 4).transpose(1, 2).reshape(2, 12), L(3, 12), L(12, 2)),
        x(2, 3),
        [3, 4],
    ),
    "views that do not agree freeze": (
        Net(
            lambda n, t: n.b((h := n.a(t)).view(2, 2, 6).sum(1)) + n.c(h.view(2, 3, 4).sum(1)),
            **given(L(3, 12), L(6, 2), L(4, 2)),
        ),
        x(2, 3),
        [],
    ),
    "views that refine one another": (
        Net(
            lambda n, t: n.d(n.b((h := n.a(t)).view(2, 2, 6)).flatten(1)) + n.e(n.c(h.view(2, 4, 3)).flatten(1)),
            **given(L(3, 12), L(6, 4), L(3, 5), L(8, 2), L(20, 2)),
        ),
        x(2, 3),
        [2, 2, 3, 4, 5],
    ),
    "unflatten, movedim, squeeze": (
        around(lambda h: h.unflatten(-1, (3, 4)).movedim(-1, 1).unsqueeze(0).squeeze(0).flatten(1), L(3, 12), L(12, 2)),
        x(2, 3),
        [3, 4],
    ),
    "expand": (Net(lambda n, t: n.b(n.a(t)[:, None].expand(-1, 4, -1)).mean(1), **given(L(3, 5), L(5, 2))), x(2, 3), [5]),
    "repeat": (around(lambda h: h.repeat(1, 2), L(3, 5), L(10, 2)), x(2, 3), [2, 5]),
    "repeat_interleave": (around(lambda h: h.repeat_interleave(2, 1), L(3, 5), L(10, 2)), x(2, 3), [2, 5]),
    "channel padding": (
        Net(lambda n, t: n.c(F.pad(n.a(t), (2, 3)) + n.b(t)), **given(L(3, 4), L(3, 9), L(9, 2))),
        x(2, 3),
        [2, 3, 4],
    ),
    # space
    "pooling": (around(lambda h: F.avg_pool2d(F.max_pool2d(h, 2), 2), C2(3, 5, 1), C2(5, 2, 1)), x(1, 3, 8, 8), [5]),
    "adaptive pooling": (around(lambda h: F.adaptive_avg_pool2d(h, 1).flatten(1), C2(3, 5, 1), L(5, 2)), x(1, 3, 8, 8), [5]),
    "resize": (
        around(lambda h: F.interpolate(F.interpolate(h, scale_factor=2), (6, 6), mode="bilinear"), C2(3, 5, 1), C2(5, 2, 1)),
        x(1, 3, 4, 4),
        [5],
    ),
    "spatial padding": (
        around(lambda h: F.pad(F.pad(h, (1, 1)), (1, 0), mode="replicate"), C1(3, 5, 1), C1(5, 2, 1)),
        x(1, 3, 6),
        [5],
    ),
    "pixel shuffle": (around(lambda h: F.pixel_shuffle(h, 2), C2(3, 12, 1), C2(3, 2, 1)), x(1, 3, 4, 4), [3]),
    "pixel unshuffle": (around(lambda h: F.pixel_unshuffle(h, 2), C2(3, 5, 1), C2(20, 2, 1)), x(1, 3, 4, 4), [5]),
    "channel shuffle": (around(lambda h: F.channel_shuffle(h, 2), C2(3, 6, 1), C2(6, 2, 1)), x(1, 3, 4, 4), [2, 3]),
    "channel shuffle written out": (
        around(lambda h: h.view(1, 2, 3, 4, 4).transpose(1, 2).reshape(1, 6, 4, 4), C2(3, 6, 1), C2(6, 2, 1)),
        x(1, 3, 4, 4),
        [2, 3],
    ),
    "unfold": (around(lambda h: F.unfold(h, 2).transpose(1, 2), C2(3, 5, 1), L(20, 2)), x(1, 3, 4, 4), [5]),
    "fold": (around(lambda h: F.fold(h.transpose(1, 2), (4, 4), 2, stride=2), L(3, 20), C2(5, 2, 1)), x(1, 4, 3), [5]),
    "grid sample": (
        Net(lambda n, t, g: n.b(F.grid_sample(n.a(t), g, align_corners=False)), **given(C2(3, 5, 1), C2(5, 2, 1))),
        (x(1, 3, 4, 4), x(1, 3, 3, 2)),
        [5],
    ),
    # reductions
    "sum over channels": (Net(lambda n, t: n.a(t).sum(-1), a=L(3, 5)), x(2, 3), [5]),
    "sum beside a consumer": (Net(lambda n, t: n.b(n.a(t)).sum(1), **given(C1(3, 5, 1), C1(5, 4, 1))), x(2, 3, 6), [4, 5]),
    "mean over tokens": (around(lambda h: h.mean(1), L(3, 5), L(5, 2)), x(2, 4, 3), [5]),
    "variance over channels freezes": (
        Net(lambda n, t: n.b(h := n.a(t)) / h.var(-1, keepdim=True), **given(L(3, 5), L(5, 2))),
        x(2, 3),
        [],
    ),
    "maximum over tokens": (around(lambda h: h.amax(1), L(3, 5), L(5, 2)), x(2, 4, 3), [5]),
    "maximum over channels freezes": (
        Net(lambda n, t: n.b(h := n.a(t)) * h.amax(-1, True), **given(L(3, 5), L(5, 2))),
        x(2, 3),
        [],
    ),
    "softmax over channels freezes": (around(lambda h: h.softmax(-1), L(3, 5), L(5, 2)), x(2, 3), []),
    "sort over channels freezes": (around(lambda h: h.sort(-1)[0], L(3, 5), L(5, 2)), x(2, 3), []),
    "cumsum over channels freezes": (around(lambda h: h.cumsum(-1), L(3, 5), L(5, 2)), x(2, 3), []),
    "cumsum over tokens": (around(lambda h: h.cumsum(1), L(3, 5), L(5, 2)), x(2, 4, 3), [5]),
    # tables
    "embedding": (chain(nn.Embedding(7, 5), L(5, 2)), torch.tensor([[1, 2]]), [5]),
    "tied output layer": (
        Net(lambda n, t: F.linear(n.b(n.a(t)), n.a.weight), **given(nn.Embedding(7, 5), L(5, 5))),
        torch.tensor([[1, 2]]),
        [5],
    ),
    "positions added": (Net(lambda n, t: n.b(n.a(t) + n.p), p=x(1, 4, 5), **given(L(3, 5), L(5, 2))), x(2, 4, 3), [5]),
    "positions cut to length": (
        Net(lambda n, t: n.b(n.a(t) + n.p[:, :4]), p=x(1, 9, 5), **given(L(3, 5), L(5, 2))),
        x(2, 4, 3),
        [5],
    ),
    "numbers of channels freeze": (around(lambda h: h * torch.arange(5), L(3, 5), L(5, 2)), x(2, 3), []),
    "one value for all channels": (around(lambda h: h + torch.full((5,), 0.5), L(3, 5), L(5, 2)), x(2, 3), [5]),
}


def _written(t: Tensor) -> Tensor:
    t = t.clone()
    t[:, :2] = t[:, :2] * 2
    return t


READ_WITHOUT_WEIGHTS = {"normalised rows"}


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    model, example, expected = CASES[name]
    assert sizes(check(model, example, silence=name not in READ_WITHOUT_WEIGHTS)) == expected
