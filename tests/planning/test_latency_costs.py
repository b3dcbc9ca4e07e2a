"""The time as a function of kept counts: every operator is asked for at the shapes it has in the smaller model."""

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.graph import trace
from secateurs.measure.widths import Shaped, TimeTable
from secateurs.planning.latency_costs import LatencyCosts, layers
from tests.planning.nets import IMAGES, Residual, convolutions


class Entries(TimeTable):
    """A call takes a second per entry of its tensors."""

    def seconds(self, call):
        return float(sum(torch.Size(each.shape).numel() for each in call.arguments if isinstance(each, Shaped)))


class Transposed(nn.Module):
    """A depthwise convolution, and up again."""

    def __init__(self):
        super().__init__()
        self.first, self.own = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up, self.last = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.last(self.up(self.own(self.first(x)).relu()))


@pytest.mark.parametrize("build", [convolutions, Residual, Transposed])
def test_calls_are_those_of_the_smaller_model(build):
    model = build().eval()
    done = sc.prune(model, "channels", example=IMAGES, flops=0.5)
    kept = {e.name: e.kept for e in done.plan.entries}
    foreseen = [layer.call(kept) for layer in layers(trace(model, IMAGES), list(kept))]
    assert foreseen == [layer.call({}) for layer in layers(trace(done.model, IMAGES), [])]
    for call in foreseen:
        call.on(torch.device("cpu"))()


def test_layers_are_called_by_their_modules():
    names = [layer.name for layer in layers(trace(Residual().eval(), IMAGES), [])]
    assert names[0] == "stem" and {"widen", "narrow", "depthwise", "head"} <= set(names)


def test_what_no_layer_accounts_for_stays():
    graph = trace(Residual().eval(), IMAGES)
    whole = {group.name: group.size for group in graph.prunable()}
    timed = LatencyCosts.of(graph, whole, None, Entries())
    dense = timed(whole)
    rest = LatencyCosts.of(graph, whole, lambda: dense + 1000, Entries())
    fewer = {name: size - 1 for name, size in whole.items()}
    assert rest.rest == 1000 and rest(whole) == dense + 1000 and rest(fewer) == timed(fewer) + 1000 < rest(whole)
    assert LatencyCosts.of(graph, whole, lambda: dense / 2, Entries()).rest == 0


def test_a_budget_in_seconds_is_met_by_the_table(monkeypatch):
    from secateurs.train import structured

    table = Entries()
    monkeypatch.setattr(structured.LatencyCosts, "of", classmethod(
        lambda cls, graph, whole, seconds=None: cls(tuple(layers(graph, list(whole))), dict(whole), table)))  # fmt: skip
    graph = trace(Residual().eval(), IMAGES)
    whole = {group.name: group.size for group in graph.prunable()}
    costs = LatencyCosts(tuple(layers(graph, list(whole))), whole, table)
    plan = sc.plan(Residual().eval(), "channels", example=IMAGES, latency=0.7)
    kept = {e.name: e.kept for e in plan.entries}
    assert costs(kept) <= 0.7 * costs({})
    assert any(costs({**kept, name: count + 1}) > 0.7 * costs({}) for name, count in kept.items())
