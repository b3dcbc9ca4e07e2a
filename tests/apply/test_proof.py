"""The proof fails when something is wrong, and says where it looked."""

import torch

from secateurs.apply import kept_parameters, shrink, verify_shrunk
from secateurs.graph import trace
from tests.apply import shrinkable as nets

X = torch.randn(2, 2, 6, 6)


def prepared():
    model = nets.Pair().eval()
    graph = trace(model, X)
    keeps = nets.keep(graph, drop=2)
    return model, graph, keeps, shrink(model, graph, keeps)


def test_it_looks_at_other_batches_and_sizes():
    model, graph, keeps, shrunk = prepared()
    found = verify_shrunk(model, shrunk, graph, keeps)
    assert [c.name for c in found.checks] == [
        "exact counts",
        "outputs equal the masked model's on the example",
        "outputs equal the masked model's on random inputs like it",
        "outputs equal the masked model's on a batch of 3",
        "outputs equal the masked model's on other sizes (9 for 6)",
    ]
    assert found.ok and "1e-09 allowed" in found.checks[1].detail
    assert kept_parameters(model, graph, keeps) == shrunk.parameters
    assert found.checks[0].detail == f"{shrunk.parameters} parameters"


def test_a_weight_that_is_off_by_little_is_found():
    model, graph, keeps, shrunk = prepared()
    with torch.no_grad():
        shrunk.model.first.weight[0, 0, 0, 0] += 1e-5
    found = verify_shrunk(model, shrunk, graph, keeps)
    assert [c.ok for c in found.checks] == [True, False, False, False, False]


def test_channels_in_another_order_are_found():
    model, graph, keeps, shrunk = prepared()
    with torch.no_grad():
        shrunk.model.second.weight.copy_(shrunk.model.second.weight.flip(1))
    assert not verify_shrunk(model, shrunk.model, graph, keeps).ok


def test_a_count_that_is_not_the_promised_one_is_found():
    model, graph, keeps, shrunk = prepared()
    shrunk.model.extra = torch.nn.Parameter(torch.zeros(3))
    found = verify_shrunk(model, shrunk.model, graph, keeps)
    assert not found.checks[0].ok and f"promised {shrunk.parameters}" in found.checks[0].detail


class Drawing(nets.Pair):
    """Leaves rows out at random, as masked autoencoders do."""

    def forward(self, x):
        return super().forward(x * (torch.rand(len(x), 1, 1, 1) > 0.5))


def test_models_that_draw_random_numbers_draw_the_same():
    model = Drawing().eval()
    graph = trace(model, X)
    keeps = nets.keep(graph, drop=2)
    shrunk = shrink(model, graph, keeps)
    before = torch.random.get_rng_state()
    assert not shrunk.is_exported and verify_shrunk(model, shrunk, graph, keeps).ok
    assert torch.equal(before, torch.random.get_rng_state())
