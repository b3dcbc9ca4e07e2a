"""Scores of groups: which members count, by hand; ragged children; random and data-driven criteria."""

import pytest
import torch

from secateurs.core.criteria import find_criterion
from secateurs.errors import BadInput, NotFinite
from secateurs.graph import trace
from secateurs.graph.groups import Group, Slice
from secateurs.planning.group_scores import Scoring, score_groups
from tests.planning.nets import SEQUENCES, Attention

OWN = torch.tensor([[0], [1]])
TENSORS = {
    "a.weight": torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 1.0]]),  # rows: 5, 10
    "a.bias": torch.tensor([10.0, 0.0]),
    "n.weight": torch.tensor([2.0, 1.0]),  # 4, 1
    "n.bias": torch.tensor([0.0, 10.0]),
    "b.weight": torch.tensor([[3.0, 1.0]]),  # columns: 9, 1
}
GROUP = Group("a.weight:0", 2, (
    Slice("a.weight", 0, OWN, "out"), Slice("a.bias", 0, OWN, "bias"), Slice("n.weight", 0, OWN, "norm"),
    Slice("n.bias", 0, OWN, "norm"), Slice("n.mean", 0, OWN, "buffer"), Slice("b.weight", 1, OWN, "in"),
))  # fmt: skip


def nothing(name):
    return {}


def scores(criterion="magnitude", supply=nothing, groups=(GROUP,), tensors=TENSORS, **settings):
    settings = {"normalize": "none", **settings}
    return score_groups(groups, tensors, Scoring(find_criterion(criterion), **settings), supply, {g.name: g for g in groups})


def test_rows_columns_and_norm_weights_count_and_biases_do_not():
    assert scores(aggregate="mean")["a.weight:0"].tolist() == [(5 + 4 + 9) / 3, (10 + 1 + 1) / 3]
    assert scores(aggregate="sum")["a.weight:0"].tolist() == [18.0, 12.0]
    assert scores(aggregate="max")["a.weight:0"].tolist() == [9.0, 10.0]
    assert scores(aggregate="l2")["a.weight:0"].tolist() == pytest.approx([18**0.5, 12**0.5])


def test_biases_count_when_asked():
    assert scores(aggregate="sum", biases=True)["a.weight:0"].tolist() == [118.0, 112.0]


def test_a_power_of_one_sums_magnitudes():
    assert scores(aggregate="sum", power=1)["a.weight:0"].tolist() == [3 + 2 + 3.0, 4 + 1 + 1.0]


def test_scores_are_normalised_in_their_group():
    assert scores(aggregate="sum", normalize="mean")["a.weight:0"].tolist() == [18 / 15, 12 / 15]


def test_taylor_sums_what_the_loss_would_change():
    gradients = {name: torch.full_like(t, 0.5) for name, t in TENSORS.items()}
    found = scores("taylor", lambda name: {"gradient": gradients[name]}, aggregate="sum")
    assert found["a.weight:0"].tolist() == [0.5 * 8, 0.5 * 6]  # zeros count nothing, not less than nothing


def test_a_member_without_the_statistic_has_no_say():
    norms = {"a.weight": torch.tensor([1.0, 2.0, 1.0]), "b.weight": torch.tensor([1.0, 4.0])}
    found = scores("wanda", lambda name: {"norms": norms[name]} if name in norms else None, aggregate="sum")
    assert found["a.weight:0"].tolist() == [1 + 4 + 3.0, 6 + 1 + 4.0]


def test_a_group_that_nothing_can_judge_is_refused():
    with pytest.raises(BadInput, match=r"criterion='wanda' can judge no member of 'a\.weight:0'"):
        scores("wanda", lambda name: None)


def test_random_scores_are_drawn_per_index_by_seed_and_name():
    first, again, other = scores("random"), scores("random"), scores("random", seed=1)
    assert torch.equal(first["a.weight:0"], again["a.weight:0"]) and not torch.equal(first["a.weight:0"], other["a.weight:0"])


def test_a_ragged_child_has_a_row_per_parent():
    model = Attention().eval()
    graph = trace(model, SEQUENCES)
    child = next(g for g in graph.prunable() if g.parent is not None and g.name.startswith("v."))
    tensors = dict(model.named_parameters())
    found = score_groups([child], tensors, Scoring(find_criterion("magnitude"), "sum", "none"), nothing,
                         {g.name: g for g in graph.groups})[child.name]  # fmt: skip
    rows, columns = model.v.weight.double().square().sum(1), model.o.weight.double().square().sum(0)
    assert found.shape == (4, 2)
    torch.testing.assert_close(found, (rows + columns).detach().view(4, 2))


def test_broken_weights_are_named():
    with pytest.raises(NotFinite, match=r"'b\.weight'"):
        scores(tensors={**TENSORS, "b.weight": torch.tensor([[float("nan"), 1.0]])})


@pytest.mark.parametrize(("setting", "says"), [
    ({"aggregate": "mode"}, "aggregate='mode'"), ({"normalize": "L2"}, "normalize='L2'"), ({"power": 0}, "power=0"),
])  # fmt: skip
def test_bad_settings_are_quoted(setting, says):
    with pytest.raises(BadInput, match=says):
        Scoring(find_criterion("magnitude"), **setting)


def test_integer_tensors_are_not_judged():
    count = {**TENSORS, "b.weight": torch.ones(1, 2, dtype=torch.int64)}
    assert scores(tensors=count, aggregate="sum")["a.weight:0"].tolist() == [9.0, 11.0]
