"""Tracing: what is refused and how it says so, what is frozen, and that the model stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.errors import BadInput
from secateurs.graph import trace
from secateurs.graph.rules import RULES, rule_for
from tests.graph.checking import Net, check, sizes


def net(middle: Any) -> nn.Module:
    return Net(lambda n, t: n.b(middle(n.a(t))), a=nn.Linear(3, 5), b=nn.Linear(5, 2))


X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


def test_an_unknown_operator_freezes_what_it_touches() -> None:
    """``logcumsumexp``'s cousin has no rule: its axes are in the report, with its name, and in no prunable group."""
    assert rule_for("aten::renorm") is None
    graph = trace(net(lambda h: torch.renorm(h, 2, 0, 1.0)), X)
    assert graph.prunable() == ()
    assert [(f.axis, f.reason) for f in graph.frozen if f.size == 0] == [("renorm", "no rule for aten::renorm")]
    assert graph["a.weight:0"].frozen == "no rule for aten::renorm"


@torch.library.custom_op("secateurs_tests::twice", mutates_args=())
def twice(t: Tensor) -> Tensor:
    return t * 2


@twice.register_fake
def _(t: Tensor) -> Tensor:
    return torch.empty_like(t)


def test_a_custom_operator_freezes() -> None:
    graph = trace(net(twice), X)
    assert graph["a.weight:0"].frozen == "no rule for secateurs_tests::twice"


def test_control_flow_freezes() -> None:
    graph = trace(net(lambda h: torch.cond(h.sum() > 0, lambda t: t.sin(), lambda t: t.cos(), (h,))), X)
    assert "control flow: cond" in (graph["a.weight:0"].frozen or "")


def test_what_the_model_returns_is_frozen() -> None:
    graph = trace(Net(lambda n, t: {"hidden": (h := n.a(t)), "out": n.b(h)}, a=nn.Linear(3, 5), b=nn.Linear(5, 2)), X)
    assert {group.name: group.frozen for group in graph.groups if group.size == 5} == {"a.weight:0": "the model returns it"}


def test_an_unused_weight_is_no_group() -> None:
    graph = trace(Net(lambda n, t: n.b(n.a(t)), a=nn.Linear(3, 5), b=nn.Linear(5, 2), c=nn.Linear(4, 7)), X)
    assert sizes(graph) == [5]
    assert graph["c.weight:0"].frozen == "this trace does not use it"


def test_positions_beyond_the_example_stay() -> None:
    """Four of nine positions are read here; the other five belong to longer inputs."""
    model = Net(lambda n, t: n.b(n.a(t) + n.p[:, :4]), p=torch.randn(1, 9, 5), a=nn.Linear(3, 5), b=nn.Linear(5, 2))
    graph = trace(model, torch.randn(2, 4, 3))
    assert [(g.size, g.frozen) for g in graph.groups if g.slices[0].tensor == "p" and g.slices[0].dim == 1] == [
        (4, "an input of the model"), (5, "no operator of this trace multiplies it"),
    ]  # fmt: skip


def test_regions_without_gradient_are_walked() -> None:
    def forward(n: Any, t: Tensor) -> Tensor:
        h = n.a(t)
        with torch.no_grad():
            scale = n.s.exp()
        with torch.autocast("cpu", enabled=False):
            h = h * scale
        return n.b(h)

    model = Net(forward, a=nn.Linear(3, 5), s=torch.randn(5), b=nn.Linear(5, 2))
    graph = check(model, X.double())
    assert {member.tensor for member in graph["a.weight:0"].slices} == {"a.weight", "a.bias", "s", "b.weight"}


def test_a_dynamic_batch_is_frozen_like_any_other() -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    model = nn.Sequential(nn.Linear(3, 6), nn.Unflatten(1, (2, 3)), nn.Flatten(), nn.Linear(6, 2))
    graph = trace(model, X, dynamic={"input": {0: batch}})
    assert sizes(graph) == [2, 3]
    assert graph.shape("linear", {"0.weight:0#1": torch.tensor([0, 2])}) == (2, 4)


def test_sizes_that_depend_on_data() -> None:
    """Rows chosen by a mask: their number is unknown, their columns are what they were."""

    def forward(n: Any, t: Tensor) -> Tensor:
        chosen = n.a(t)[t[:, 0] > -9]
        return n.b(chosen.view(-1, 5, 1).flatten(1)).sum(0)

    graph = check(Net(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 2)), X.double())
    assert graph["a.weight:0"].frozen is None


def test_a_mask_over_channels_freezes_them() -> None:
    def forward(n: Any, t: Tensor) -> Tensor:
        h = n.a(t).clone()
        h[h > 0] = 1.0
        return n.b(h)

    assert sizes(trace(Net(forward, a=nn.Linear(3, 5), b=nn.Linear(5, 2)), X)) == []


def test_keyword_and_several_inputs() -> None:
    model = Net(lambda n, t, u: n.b(n.a(t) + u), a=nn.Linear(3, 5), b=nn.Linear(5, 2))
    assert trace(model, (X, torch.ones(2, 1))).prunable()[0].size == 5

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, *, left: Tensor, right: Tensor) -> Tensor:
            return self.inner(left, right)

    assert trace(Named(), {"left": X, "right": torch.ones(2, 1)}).prunable()[0].size == 5


def test_the_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 2))
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace(model, X)
    assert [module.training for module in model] == [True, False, True, True]
    assert torch.backends.mha.get_fastpath_enabled()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def branching(h: Tensor) -> Tensor:
    return h if h.sum() > 0 else -h


@pytest.mark.parametrize(
    ("model", "example", "message"),
    [
        (nn.Linear(3, 5), torch.randn(2, 4), r"this Linear does not run on the example: RuntimeError: mat1 and mat2 shapes"),
        (nn.Linear(3, 5), (X, X), r"does not run on the example: TypeError.*give the inputs its forward takes"),
        (nn.Linear(3, 5), "text", r"example='text' is no tensor, tuple of arguments or mapping"),
        (
            net(branching),
            X,
            r"torch\.export cannot trace this Net: .*test_trace\.py:\d+: return h if h\.sum\(\) > 0.*torch\.where",
        ),
        (lambda t: t, X, r"a function cannot be traced: give a torch\.nn\.Module"),
    ],
)
def test_bad_input_says_what_and_where(model: Any, example: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        trace(model, example)


def test_weight_norm_freezes() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 5)), nn.ReLU(), nn.Linear(5, 2))
    graph = trace(model, X)
    assert all(group.frozen for group in graph.groups if any("original" in member.tensor for member in group.slices))


def test_in_place_rules_are_those_of_their_twins() -> None:
    assert rule_for("aten::relu_") is RULES["relu"] and rule_for("aten::index_put_") is RULES["index_put"]
    assert rule_for("aten::__and__") is RULES["__and__"] and rule_for("aten::no_such_thing_") is None


def test_functional_attention_mask_joins_the_heads() -> None:
    """A bias per head is a member of the heads."""

    def forward(n: Any, t: Tensor) -> Tensor:
        q, k, v = (p(t).view(2, 5, 2, 4).transpose(1, 2) for p in (n.q, n.k, n.v))
        return n.o(F.scaled_dot_product_attention(q, k, v, attn_mask=n.bias).transpose(1, 2).flatten(2))

    parts = {name: nn.Linear(3, 8) for name in "qkv"}
    model = Net(forward, **parts, o=nn.Linear(8, 2), bias=torch.randn(1, 2, 5, 5))
    graph = check(model, torch.randn(2, 5, 3, dtype=torch.float64))
    assert ("bias", 1) in {(m.tensor, m.dim) for m in graph["q.weight:0#0"].slices}
