"""Whole small networks: both oracles on every group, and the couplings their designs are known for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.graph import Graph, trace
from tests.graph.checking import Net, check, sizes


def x(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


attend = F.scaled_dot_product_attention


def kinds(graph: Graph) -> dict[str, int]:
    return dict(Counter(group.kind for group in graph.prunable()))


def members(graph: Graph, name: str) -> set[tuple[str, int]]:
    return {(member.tensor, member.dim) for member in graph[name].slices}


def conv(i: int, o: int, k: int = 3, s: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o))


class Block(nn.Module):
    """A basic residual block; option A pads the shortcut with zero channels, option B projects it."""

    def __init__(self, i: int, o: int, stride: int, option: str) -> None:
        super().__init__()
        self.first, self.second = conv(i, o, 3, stride), conv(o, o)
        self.padding = (o - i) // 2 if option == "A" else 0
        self.stride = stride
        self.shortcut = conv(i, o, 1, stride) if option == "B" and i != o else nn.Identity()

    def forward(self, t: Tensor) -> Tensor:
        short = self.shortcut(t)
        if self.padding:
            short = F.pad(short[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(self.second(F.relu(self.first(t))) + short)


class ResNet(nn.Sequential):
    def __init__(self, option: str) -> None:
        super().__init__(
            conv(3, 4), nn.ReLU(), Block(4, 4, 1, option), Block(4, 8, 2, option), Block(8, 8, 1, option),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        )  # fmt: skip


def test_resnet_with_padded_shortcuts() -> None:
    """The stem lives on as the middle four of the second stage's eight channels; its neighbours are two groups of two."""
    graph = check(ResNet("A"), x(2, 3, 8, 8))
    assert sizes(graph) == [2, 2, 4, 4, 8, 8]
    stem = graph["0.0.weight:0"]
    late = next(member for member in stem.slices if member.tensor == "4.second.0.weight")
    assert late.index.tolist() == [[2], [3], [4], [5]]
    assert ("7.weight", 1) in members(graph, "0.0.weight:0")


def test_resnet_with_projected_shortcuts() -> None:
    graph = check(ResNet("B"), x(2, 3, 8, 8))
    assert sizes(graph) == [4, 4, 8, 8, 8]
    trunk = members(graph, "3.second.0.weight:0")
    assert {("3.shortcut.0.weight", 0), ("4.second.0.weight", 0), ("7.weight", 1), ("4.second.1.running_var", 0)} <= trunk


def test_densenet() -> None:
    """Every layer's few channels go to all later layers, each at its own offset."""
    net = Net(
        lambda n, t: n.f(torch.cat([t := torch.cat([t := n.a(t), n.b(t.relu())], 1), n.c(t.relu())], 1).mean((2, 3))),
        a=conv(3, 4), b=conv(4, 2), c=conv(6, 2), f=nn.Linear(8, 5),
    )  # fmt: skip
    graph = check(net, x(2, 3, 6, 6))
    assert sizes(graph) == [2, 2, 4]
    assert [m.index.flatten().tolist() for m in graph["b.0.weight:0"].slices if m.role == "in"] == [[4, 5], [4, 5]]


def test_u_net() -> None:
    net = Net(
        lambda n, t: n.out(torch.cat([a := n.a(t).relu(), n.up(n.b(F.max_pool2d(a, 2)).relu())], 1)),
        a=conv(3, 4), b=conv(4, 6), up=nn.ConvTranspose2d(6, 5, 2, 2), out=nn.Conv2d(9, 2, 1),
    )  # fmt: skip
    graph = check(net, x(1, 3, 8, 8))
    assert sizes(graph) == [4, 5, 6]
    assert {("b.0.weight", 1), ("out.weight", 1)} <= members(graph, "a.0.weight:0")


def test_mobile_net() -> None:
    """Expansion, depthwise convolution, squeeze and excitation, linear bottleneck with a residual."""

    def forward(n: Any, t: Tensor) -> Tensor:
        t = n.stem(t)
        h = n.depth(F.hardswish(n.up(t)))
        gate = F.hardsigmoid(n.grow(n.squeeze(h.mean((2, 3), True)).relu()))
        return n.f((t + n.down(h * gate)).mean((2, 3)))

    net = Net(
        forward, stem=conv(3, 4), up=conv(4, 8, 1), depth=conv(8, 8, 3, groups=8), squeeze=nn.Conv2d(8, 2, 1),
        grow=nn.Conv2d(2, 8, 1), down=conv(8, 4, 1), f=nn.Linear(4, 5),
    )  # fmt: skip
    graph = check(net, x(1, 3, 6, 6))
    assert sizes(graph) == [2, 4, 8]
    assert {("depth.0.weight", 0), ("grow.weight", 0), ("squeeze.weight", 1), ("down.0.weight", 1)} <= members(
        graph, "up.0.weight:0"
    )


class Shuffle(nn.Module):
    """A ShuffleNet unit: half the channels pass, half are worked on, then both are shuffled."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(c, c, 1), conv(c, c, 3, groups=c), conv(c, c, 1)

    def forward(self, t: Tensor) -> Tensor:
        left, right = t.chunk(2, 1)
        t = torch.cat([left, self.c(self.b(self.a(right).relu())).relu()], 1)
        n, c, h, w = t.shape
        return t.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def test_shuffle_net() -> None:
    net = nn.Sequential(conv(3, 8), Shuffle(4), Shuffle(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    graph = check(net, x(1, 3, 6, 6))
    assert 4 in sizes(graph)
    assert ("1.b.0.weight", 0) in members(graph, "1.a.0.weight:0")


def test_resnext_block() -> None:
    """A grouped convolution between two plain ones: groups, channels into each group, channels out of each group."""
    net = nn.Sequential(conv(3, 6, 1), conv(6, 10, 3, groups=2), conv(10, 4, 1), nn.Flatten(), nn.Linear(64, 5))
    graph = check(net, x(1, 3, 4, 4))
    assert sizes(graph) == [2, 3, 4, 5]
    assert graph["0.0.weight:0#1"].parent == graph["1.0.weight:0#1"].parent == "0.0.weight:0#0"


def test_mixer() -> None:
    """Tokens are a dimension of weights too; the class token's place is not."""
    net = Net(
        lambda n, t: n.f((t := (t := n.embed(t)) + n.token(t.mT).mT) + n.down(n.up(t).relu())).mean(1),
        embed=nn.Linear(3, 6), token=nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 4)), up=nn.Linear(6, 8),
        down=nn.Linear(8, 6), f=nn.Linear(6, 5),
    )  # fmt: skip
    assert sizes(check(net, x(2, 4, 3))) == [6, 7, 8]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_tagger(cell: Any, layers: int, bidirectional: bool) -> None:
    """One hidden axis per layer and direction; where there are several, they keep equal counts."""
    layer = cell(4, 5, layers, batch_first=True, bidirectional=bidirectional)
    net = Net(lambda n, t: n.f(n.r(n.e(t))[0]), e=nn.Linear(3, 4), r=layer,
              f=nn.Linear(10 if bidirectional else 5, 2))  # fmt: skip
    graph = check(net, x(2, 6, 3))
    count = layers * (2 if bidirectional else 1)
    assert kinds(graph) == {"neurons": 1, "hidden": count}
    hidden = [group for group in graph.prunable() if group.kind == "hidden"]
    assert {group.tie for group in hidden} == ({None} if count == 1 else {"tie0"})
    assert ("f.weight", 1) in members(graph, hidden[-1].name)


def test_recurrent_layer_with_a_projection() -> None:
    net = Net(lambda n, t: n.f(n.r(t)[0]), r=nn.LSTM(3, 6, proj_size=4), f=nn.Linear(4, 2))
    graph = check(net, x(5, 2, 3))
    assert sizes(graph) == [4, 6]
    assert members(graph, "r.weight_hr_l0:0") == {("r.weight_hr_l0", 0), ("r.weight_hh_l0", 1), ("f.weight", 1)}


def test_recurrent_last_state() -> None:
    """The states of all layers are one tensor: where it is read, their indices are one."""
    net = Net(lambda n, t: n.f(n.r(t)[1][-1]), r=nn.GRU(3, 5, 2), f=nn.Linear(5, 2))
    assert sizes(check(net, x(6, 2, 3))) == [5]


def test_tied_counts_of_unlike_axes_freeze() -> None:
    """The upper layer's state is seen as three heads of two, the lower one's is not: no count of heads fits both."""
    net = Net(lambda n, t: n.f(n.r(t)[0].view(5, 2, 3, 2).sum(2)), r=nn.GRU(3, 6, 2), f=nn.Linear(2, 4))
    graph = check(net, x(5, 2, 3))
    assert sizes(graph) == []
    assert graph["r.weight_ih_l0:0#1"].frozen == "6, 3 x 2 must keep equal counts"


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first)
    net = Net(lambda n, t: n.f(n.e(n.i(t)).mean(1)), i=nn.Linear(3, 8), e=nn.TransformerEncoder(layer, 2), f=nn.Linear(8, 2))
    graph = check(net, x(2, 5, 3))
    assert kinds(graph) == {"width": 1, "heads": 2, "head-dims": 2, "neurons": 2}
    assert graph["i.weight:0"].norms[0] == "e.layers.0.norm1"
    heads = graph["e.layers.0.self_attn.in_proj_weight:0#0"]
    assert heads.slices[0].index[1].tolist() == [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23]
    assert graph["e.layers.0.self_attn.in_proj_weight:0#1"].parent == heads.name


def test_multihead_attention_with_weights() -> None:
    """Three inputs, so the projection is split in three; the averaged weights nobody asked for freeze no head."""
    net = Net(
        lambda n, t: n.f(n.m(n.i(t), n.i(t), n.i(t))[0]), i=nn.Linear(3, 8), m=nn.MultiheadAttention(8, 2), f=nn.Linear(8, 2)
    )
    assert kinds(check(net, x(5, 2, 3))) == {"neurons": 2, "heads": 1, "head-dims": 2}


def test_transformer_with_a_decoder() -> None:
    net = Net(
        lambda n, s, t: n.f(n.t(n.i(s), n.i(t))),
        i=nn.Linear(3, 8),
        t=nn.Transformer(8, 2, 1, 1, 12, batch_first=True),
        f=nn.Linear(8, 2),
    )
    graph = check(net, (x(2, 5, 3), x(2, 4, 3)))
    assert kinds(graph) == {"width": 1, "heads": 3, "head-dims": 3, "neurons": 2}


@pytest.mark.parametrize("flag", [False, True])
def test_grouped_queries(flag: bool) -> None:
    """Two key-value heads for six query heads, by the operator's flag and written out."""

    def forward(n: Any, t: Tensor) -> Tensor:
        q, k, v = (p(t).view(2, 5, -1, 4).transpose(1, 2) for p in (n.q, n.k, n.v))
        if not flag:
            k, v = (s[:, :, None].expand(2, 2, 3, 5, 4).reshape(2, 6, 5, 4) for s in (k, v))
        return n.o(F.scaled_dot_product_attention(q, k, v, enable_gqa=flag).transpose(1, 2).flatten(2))

    net = Net(forward, q=nn.Linear(3, 24), k=nn.Linear(3, 8), v=nn.Linear(3, 8), o=nn.Linear(24, 2))
    graph = check(net, x(2, 5, 3))
    assert kinds(graph) == {"kv-heads": 1, "heads": 1, "head-dims": 2}
    shared, queries = graph["q.weight:0#0"], graph["q.weight:0#1"]
    assert (shared.kind, queries.kind, queries.parent) == ("kv-heads", "heads", shared.name)
    assert {m.tensor: m.index[1].tolist() for m in shared.slices if m.dim == 0 and m.role == "out"} == {
        "q.weight": list(range(12, 24)), "k.weight": [4, 5, 6, 7], "v.weight": [4, 5, 6, 7],
    }  # fmt: skip


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_pairs(interleaved: bool) -> None:
    """Head dimensions leave in the pairs that turn together, with their column of the cache."""
    even, odd = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(0, 3), slice(3, 6))

    def turn(n: Any, t: Tensor) -> Tensor:
        a, b = t[..., even], t[..., odd]
        if interleaved:
            return torch.stack([a * n.cos - b * n.sin, b * n.cos + a * n.sin], -1).flatten(-2)
        return torch.cat([a * n.cos - b * n.sin, b * n.cos + a * n.sin], -1)

    def forward(n: Any, t: Tensor) -> Tensor:
        q, k, v = (p(t).view(2, 5, 2, 6).transpose(1, 2) for p in (n.q, n.k, n.v))
        scores = (turn(n, q) @ turn(n, k).transpose(2, 3)).softmax(-1)
        return n.o((scores @ v).transpose(1, 2).flatten(2))

    net = Net(forward, q=nn.Linear(3, 12), k=nn.Linear(3, 12), v=nn.Linear(3, 12), o=nn.Linear(12, 2), cos=x(5, 3), sin=x(5, 3))
    graph = check(net, x(2, 5, 3))
    pairs = next(group for group in graph.prunable() if group.kind == "head-dims" and group.size == 3)
    assert {"cos", "sin"} <= {member.tensor for member in pairs.slices}
    rows = next(member for member in pairs.slices if member.tensor == "q.weight")
    assert rows.index[0].tolist() == ([0, 1, 6, 7] if interleaved else [0, 3, 6, 9])


def test_fused_qkv_with_view() -> None:
    net = Net(
        lambda n, t: n.o(attend(*n.w(t).view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)).transpose(1, 2).flatten(2)),
        w=nn.Linear(3, 24), o=nn.Linear(8, 2),
    )  # fmt: skip
    assert kinds(check(net, x(2, 5, 3))) == {"heads": 1, "head-dims": 1}


def test_fused_qkv_with_split() -> None:
    """Split before the view, so the values' head dimensions are independent of the queries' and keys'."""
    net = Net(
        lambda n, t: n.o(attend(*(p.view(2, 5, 2, 4).transpose(1, 2) for p in n.w(t).chunk(3, -1))).transpose(1, 2).flatten(2)),
        w=nn.Linear(3, 24), o=nn.Linear(8, 2),
    )  # fmt: skip
    assert kinds(check(net, x(2, 5, 3))) == {"heads": 1, "head-dims": 2}


def test_patch_merging() -> None:
    """Four strided slices side by side: the merged columns are four copies of one axis."""
    net = Net(
        lambda n, t: n.f(torch.cat([(t := n.i(t))[:, 0::2, 0::2], t[:, 1::2, 0::2], t[:, 0::2, 1::2], t[:, 1::2, 1::2]], -1)),
        i=nn.Linear(3, 5), f=nn.Linear(20, 2),
    )  # fmt: skip
    graph = check(net, x(1, 4, 4, 3))
    assert graph["i.weight:0"].slices[-1].index.tolist() == [[k, k + 5, k + 10, k + 15] for k in range(5)]


def test_window_partition() -> None:
    """Windows of two by two, shifted: space is cut up, channels are not."""

    def forward(n: Any, t: Tensor) -> Tensor:
        t = n.i(t).roll((-1, -1), (1, 2))
        windows = t.view(1, 2, 2, 2, 2, 6).permute(0, 1, 3, 2, 4, 5).reshape(4, 4, 6)
        q, k, v = n.w(windows).reshape(4, 4, 3, 2, 3).permute(2, 0, 3, 1, 4)
        scores = (q * 3**-0.5) @ k.transpose(-2, -1)
        scores = (scores + n.table[n.places].view(4, 4, 2).permute(2, 0, 1)).softmax(-1)
        t = n.o((scores @ v).transpose(1, 2).reshape(4, 4, 6))
        return n.f(t.view(1, 2, 2, 2, 2, 6).permute(0, 1, 3, 2, 4, 5).reshape(1, 4, 4, 6).roll((1, 1), (1, 2)))

    net = Net(forward, i=nn.Linear(3, 6), w=nn.Linear(6, 18), o=nn.Linear(6, 6), f=nn.Linear(6, 2), table=x(9, 2))
    net.register_buffer("places", torch.arange(16) % 9)
    graph = check(net, x(1, 4, 4, 3))
    assert kinds(graph) == {"heads": 1, "head-dims": 1, "neurons": 2}
    assert ("table", 1) in members(graph, "w.weight:0#0")


def test_experts_behind_a_softmax_stay() -> None:
    """Every expert is weighed by a softmax over all, so none can go; their neurons can, each expert its own."""

    def forward(n: Any, t: Tensor) -> Tensor:
        hidden = torch.einsum("td,edf->tef", t, n.up).relu()
        return torch.einsum("te,ted->td", n.r(t).softmax(-1), torch.einsum("tef,efd->ted", hidden, n.down))

    net = Net(
        forward,
        r=nn.Linear(3, 4), up=x(4, 3, 5), down=x(4, 5, 3),
    )  # fmt: skip
    graph = check(net, x(6, 3))
    assert sizes(graph) == [5]
    experts = graph["r.weight:0"]
    assert "softmax" in (experts.frozen or "")
    assert graph.prunable()[0].parent in {group.name for group in graph.groups if group.size == 4}


MEET = {
    "flip": lambda t: t.flip(1),
    "roll": lambda t: t.roll(1, 1),
    "cumsum": lambda t: t.cumsum(1),
    "softmax": lambda t: t.softmax(1),
    "sort": lambda t: t.sort(1).values,
    "layer norm": lambda t: F.layer_norm(t.transpose(1, 2), (3,)).transpose(1, 2),
}


@pytest.mark.parametrize("meeting", MEET.values(), ids=MEET)
def test_children_lose_the_same_indices_where_their_parents_meet(meeting: Any) -> None:
    net = Net(lambda n, t: n.o(meeting(n.i(t).view(-1, 3, 4)).reshape(-1, 12)), i=nn.Linear(5, 12), o=nn.Linear(12, 2))
    graph = check(net, x(6, 5))
    assert next(group for group in graph.prunable() if group.size == 4).parent is None


def test_tied_embeddings_are_one_member() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.body, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
            self.head.weight = self.table.weight

        def forward(self, t: Tensor) -> Tensor:
            return self.head(self.body(self.table(t)))

    graph = check(Tied(), torch.tensor([[1, 2, 3]]))
    assert members(graph, "table.weight:1") == {("table.weight", 1), ("body.weight", 0), ("body.weight", 1), ("body.bias", 0)}
    assert {member.role for member in graph["table.weight:1"].slices if member.tensor == "table.weight"} == {"in"}


def test_signatures_are_equal_for_equal_parts() -> None:
    graph = trace(ResNet("B").eval(), torch.randn(1, 3, 8, 8))
    assert graph["2.first.0.weight:0"].signature == graph["4.first.0.weight:0"].signature != graph["0.0.weight:0"].signature
