"""Which groups, how many of each, which indices: scopes, budgets, rounding, ties and ragged children."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core.count import removed_count
from secateurs.errors import BadInput
from secateurs.graph import trace
from secateurs.graph.groups import Group, Slice
from secateurs.planning.budgets import Budget, budget_of
from secateurs.planning.choose_groups import Cutting, choose_groups, cut_groups, forced, keeps_of
from secateurs.planning.group_costs import Costs
from secateurs.planning.multiply_adds import multiply_adds
from secateurs.recipe import Recipe
from tests.planning.nets import IMAGES, NETS, SEQUENCES, WORDS, Attention, Residual, Tagger, convolutions


def graph_and_costs(build, example):
    model = build().eval()
    graph = trace(model, example)
    groups = graph.prunable()
    return graph, groups, Costs.of(model, groups, multiply_adds(graph, [g.name for g in groups]))


GRAPHS = {name: graph_and_costs(*net) for name, net in NETS.items()}


def some_scores(groups, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = {g.name: g.size for g in groups}
    return {g.name: torch.rand([*([sizes[g.parent]] if g.parent else []), g.size], generator=generator, dtype=torch.float64)
            for g in groups}  # fmt: skip


def cut(net, budget, cutting=None, seed=0):
    _, groups, costs = GRAPHS[net]
    return cut_groups(groups, some_scores(groups, seed), cutting or Cutting("global"), budget, costs)


def removed_one_by_one(groups, scores, limit, cost):
    """The plain loop: of all indices left, the one with the lowest score goes, as long as the cost is too high."""
    kept = {g.name: g.size for g in groups}
    ascending = {g.name: scores[g.name].sort().values.tolist() for g in groups}
    while cost(kept) > limit:
        free = [g for g in groups if kept[g.name] > 1]
        lowest = min(free, key=lambda g: ascending[g.name][g.size - kept[g.name]])
        kept[lowest.name] -= 1
    return kept


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("name", ["flops", "params", "bytes"])
def test_a_budget_is_the_plain_loops(name, share):
    _, groups, costs = GRAPHS["residual"]
    scores, of = some_scores(groups), {"flops": "multiply_adds", "params": "parameters", "bytes": "bytes"}[name]
    limit = int(Fraction(str(share)) * getattr(costs(), of))
    expected = removed_one_by_one(groups, scores, limit, lambda kept: getattr(costs(kept), of))
    assert cut_groups(groups, scores, Cutting("global"), Budget(name, share), costs) == expected


@settings(max_examples=60)
@given(st.sampled_from(list(GRAPHS)), st.sampled_from(["flops", "params", "bytes"]), st.integers(5, 100),
       st.sampled_from(["global", "local", "isomorphic", "knapsack"]), st.integers(0, 9))  # fmt: skip
def test_never_above_and_within_one_group(net, name, percent, scope, seed):
    _, groups, costs = GRAPHS[net]
    of = {"flops": "multiply_adds", "params": "parameters", "bytes": "bytes"}[name]
    limit = int(Fraction(percent, 100) * getattr(costs(), of))
    try:
        kept = cut(net, Budget(name, percent / 100), Cutting(scope), seed)
    except BadInput as error:
        assert "out of reach" in str(error)
        assert getattr(costs({g.name: 1 for g in groups}), of) > limit
        return
    assert getattr(costs(kept), of) <= limit
    one_more = [{**kept, **{g.name: kept[g.name] + 1 for g in groups if g is first or (g.tie and g.tie == first.tie)}}
                for first in groups if kept[first.name] < first.size]  # fmt: skip
    assert not one_more or any(getattr(costs(more), of) > limit for more in one_more)


@pytest.mark.parametrize("net", GRAPHS)
def test_tied_groups_keep_equal_counts(net):
    _, groups, _ = GRAPHS[net]
    kept = cut(net, Budget("params", 0.6))
    ties = {}
    for g in groups:
        ties.setdefault(g.tie or g.name, set()).add(kept[g.name])
    assert all(len(counts) == 1 for counts in ties.values())


def test_a_local_ratio_is_the_exact_count_of_every_group():
    _, groups, _ = GRAPHS["residual"]
    kept = cut("residual", Budget("ratio", 0.3), Cutting("local"))
    assert kept == {g.name: g.size - removed_count(g.size, 0.3) for g in groups}


def test_a_global_ratio_is_the_exact_count_of_all():
    kept = cut("residual", Budget("ratio", 0.3))
    assert sum(kept.values()) == 20 - removed_count(20, 0.3)


def test_isomorphic_groups_are_ranked_among_themselves():
    low, high = torch.arange(4.0).double(), torch.arange(4.0).double() + 10
    groups = [Group(n, 4, (Slice(n, 0, torch.arange(4)[:, None], "out"),), signature=s) for n, s in
              (("a", "x"), ("b", "x"), ("c", "y"))]  # fmt: skip
    costs = Costs.of(torch.nn.Module(), groups, multiply_adds=GRAPHS["residual"][2].multiply_adds)
    scores = {"a": low, "b": high, "c": high}
    assert cut_groups(groups, scores, Cutting("isomorphic"), Budget("ratio", 0.375), costs) == {"a": 1, "b": 4, "c": 2}
    assert cut_groups(groups, scores, Cutting("global"), Budget("ratio", 0.25), costs) == {"a": 1, "b": 4, "c": 4}


def test_rounding_counts_positions_not_heads():
    """A head of two entries is two channels wide: kept heads are multiples of 2 where widths are to be of 4."""
    kept = cut("attention", Budget("ratio", 0.1), Cutting("local", round_to=4))
    heads, _, values, neurons = GRAPHS["attention"][1]
    assert kept[heads.name] == 4 and kept[values.name] == 2 and kept[neurons.name] == 8
    assert cut("attention", Budget("ratio", 0.3), Cutting("local", round_to=4))[heads.name] == 2


def test_every_group_keeps_its_least():
    _, groups, _ = GRAPHS["residual"]
    kept = cut("residual", Budget("ratio", 0.9), Cutting("local", least=0.5))
    assert kept == {g.name: g.size // 2 for g in groups}
    assert min(cut("residual", Budget("flops", 0.35), Cutting("global", least=3)).values()) >= 3
    with pytest.raises(BadInput, match=r"flops=0.1 is out of reach: it allows 16,443 of 164,432 multiply-adds"):
        cut("residual", Budget("flops", 0.1), Cutting(least=6))


def test_the_highest_scores_stay_and_of_equal_ones_the_first():
    groups = [Group("a", 5, ())]
    keeps = keeps_of(groups, {"a": torch.tensor([3.0, 1.0, 1.0, 2.0, 1.0])}, {"a": 3})
    assert keeps["a"].tolist() == [0, 1, 3] and keeps["a"].dtype == torch.int64
    assert keeps_of(groups, {"a": torch.rand(5)}, {"a": 5}) == {}


def test_a_ragged_child_has_rows_for_the_parents_that_stay():
    parent, child = Group("p", 3, ()), Group("c", 3, (), parent="p")
    scores = {"p": torch.tensor([1.0, 3.0, 2.0]), "c": torch.tensor([[9.0, 9.0, 9.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])}
    keeps = keeps_of([parent, child], scores, {"p": 2, "c": 2})
    assert keeps["p"].tolist() == [1, 2] and keeps["c"].tolist() == [[1, 2], [0, 2]]
    assert keeps_of([parent, child], scores, {"p": 3, "c": 1})["c"].tolist() == [[0], [2], [0]]


def test_what_is_gone_stays_gone():
    scores = {"p": torch.tensor([5.0, 9.0, 2.0]), "c": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])}
    keeps = {"p": torch.tensor([0, 2]), "c": torch.tensor([[1], [0]])}
    found = forced(scores, keeps, {"c": "p"})
    low = -torch.inf
    assert found["p"].tolist() == [5.0, low, 2.0]
    assert found["c"].tolist() == [[low, 2.0], [3.0, 4.0], [5.0, low]]  # row 1 has no parent left: it is not ranked


def chosen(build, example, **settings):
    return [g.name for g in choose_groups(trace(build().eval(), example), Recipe("magnitude", ratio=0.5, **settings))]


def test_structures_select_kinds():
    assert chosen(Attention, SEQUENCES, structures=["heads"]) == ["q.weight:0#0"]
    assert chosen(Attention, SEQUENCES, structures=["heads", "neurons"]) == ["q.weight:0#0", "up.weight:0"]
    assert len(chosen(Attention, SEQUENCES, structures=["groups"])) == 4
    assert len(chosen(Tagger, WORDS, structures=["neurons"])) == 4


def test_include_and_exclude_select_by_member():
    assert chosen(Residual, IMAGES, structures=["channels"], include=["widen"]) == ["stem.weight:0", "widen.weight:0"]
    assert chosen(Residual, IMAGES, structures=["channels"], exclude=["head.*"]) == ["widen.weight:0"]


@pytest.mark.parametrize(("settings", "says"), [
    ({"structures": ["experts"]}, r"no experts that could go: it has groups of channels"),
    ({"structures": ["channels"], "exclude": ["heed.*"]}, r"exclude: 'heed\.\*' matches no tensor of a group"),
    ({"structures": ["channels"], "exclude": ["*"]}, "leave none of the 2 groups"),
])  # fmt: skip
def test_what_selects_nothing_says_what_there_is(settings, says):
    with pytest.raises(BadInput, match=says):
        chosen(Residual, IMAGES, **settings)


def test_a_frozen_model_says_why():
    with pytest.raises(BadInput, match=r"everything is frozen \(.*the model returns it"):
        chosen(lambda: torch.nn.Linear(3, 4), torch.ones(2, 3), structures=["groups"])


def test_ties_that_reach_beyond_the_selection_are_left():
    with pytest.raises(BadInput, match=r"'lstm\.weight_ih_l0:0#1' keeps as many indices as groups that are not selected"):
        chosen(Tagger, WORDS, structures=["neurons"], include=["lstm.bias_ih_l0"])


@pytest.mark.parametrize(("name", "value", "dense", "limit"), [
    ("flops", 0.5, 1001, 500), ("params", 700, 1001, 700), ("bytes", "2kB", 9000, 2000), ("bytes", 0.29, 100, 29),
    ("latency", "3ms", 0.01, 0.003), ("latency", 0.5, 0.01, 0.005), ("latency", "250 us", 0.01, 0.00025), ("flops", 1.0, 7, 7),
])  # fmt: skip
def test_budgets_as_limits(name, value, dense, limit):
    assert Budget(name, value).limit(dense) == pytest.approx(limit)


@pytest.mark.parametrize(("name", "value"), [
    ("flops", 1.5), ("flops", 0.0), ("flops", -3), ("flops", True), ("flops", "3GB"), ("bytes", "many"), ("latency", 3),
    ("latency", "3 hours"), ("latency", "0ms"), ("latency", "..ms"), ("params", float("nan")), ("params", 0),
])  # fmt: skip
def test_bad_budgets_are_quoted(name, value):
    with pytest.raises(BadInput, match=f"{name}={value!r}"):
        Budget(name, value).limit(1000 if name != "latency" else 1.0)


def test_no_amount_lists_them():
    with pytest.raises(BadInput, match=r"how much\? give ratio=0.3.*flops=0.5"):
        budget_of(Recipe("magnitude", structures=["channels"]))


@pytest.mark.parametrize(("given", "says"), [
    ({"scope": "all"}, "scope='all'"), ({"least": 0}, "least=0"), ({"least": 1.5}, "least=1.5"),
    ({"least": True}, "least=True"),
])  # fmt: skip
def test_bad_cutting_is_quoted(given, says):
    with pytest.raises(BadInput, match=says):
        Cutting(**given)


def test_a_knapsack_needs_a_budget():
    with pytest.raises(BadInput, match="scope='knapsack' weighs scores against what they save"):
        cut("residual", Budget("ratio", 0.5), Cutting("knapsack"))


def test_a_knapsack_takes_what_saves_most_for_its_score():
    """Equal scores everywhere: an index of the stream saves more than one of the block, so it goes first."""
    _, groups, costs = GRAPHS["residual"]
    even = {g.name: torch.ones(g.size, dtype=torch.float64) for g in groups}
    saved = {g.name: costs().multiply_adds - costs({g.name: g.size - 1}).multiply_adds for g in groups}
    best = max(saved, key=lambda name: saved[name])
    kept = cut_groups(groups, even, Cutting("knapsack"), Budget("flops", 0.95), costs)
    assert kept == {g.name: g.size - (1 if g.name == best else 0) for g in groups}


def test_convolutions_have_two_groups():
    assert len(chosen(convolutions, IMAGES, structures=["channels"])) == 2


def test_kinds_are_ranked_apart_and_lose_the_same_share():
    _, groups, costs = GRAPHS["attention"]
    large = {g.name: scores + (100 if g.kind == "heads" else 0) for g in groups for scores in [some_scores(groups)[g.name]]}
    kept = cut_groups(groups, large, Cutting("kind"), Budget("ratio", 0.5), costs)
    assert {g.kind: kept[g.name] / g.size for g in groups if g.kind in ("heads", "neurons")} == {"heads": 0.5, "neurons": 0.5}
