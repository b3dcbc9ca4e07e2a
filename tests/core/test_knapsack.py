"""Counts from ranked queues: by hand, and beside a search that tries one removal after the other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateurs.core.count import removed_count
from secateurs.core.knapsack import Queue, rank
from secateurs.errors import BadInput


def queue(name, scores, **more):
    return Queue(name, torch.tensor(sorted(scores), dtype=torch.float64), **more)


def test_one_scope_ranks_all_together():
    order = rank([queue("a", [1, 4, 5, 6]), queue("b", [2, 3, 7, 8])])
    assert order.by_share(0.25) == {"a": 3, "b": 3}
    assert order.by_share(0.5) == {"a": 2, "b": 2}
    assert order.by_share(0.375) == {"a": 3, "b": 2}


def test_local_scopes_lose_the_same_share():
    order = rank([queue("a", [1, 1, 1, 1], scope="a"), queue("b", [9, 9, 9, 9, 9, 9, 9, 9], scope="b")])
    assert order.by_share(0.5) == {"a": 2, "b": 4}
    assert order.by_share(0.99) == {"a": 1, "b": 1}  # a group keeps one
    assert order.after(3) == {"a": 3, "b": 6}  # turns: at 1/16, 1/8 and 3/16, so b, a, b


def test_equal_scores_keep_the_earlier_queue():
    order = rank([queue("a", [5, 5]), queue("b", [5, 5]), queue("c", [5, 9])])
    assert order.after(1) == {"a": 2, "b": 2, "c": 1}
    assert order.after(2) == {"a": 2, "b": 1, "c": 1}


def test_every_queue_keeps_its_least():
    order = rank([queue("a", [1, 1, 1, 1], least=3), queue("b", [5, 6, 7, 8], least=2)])
    assert order.after(len(order.queue)) == {"a": 3, "b": 2}
    with pytest.raises(BadInput, match=r"ratio=0.5 of 8 indices is 4, but only 3 can go"):
        order.by_share(0.5)


def test_kept_counts_are_rounded_down_to_a_multiple():
    order = rank([queue("a", range(10), round_to=4), queue("b", range(20, 26), round_to=4)])
    assert order.queues[0].stops() == [8, 4] and order.queues[1].stops() == [4]
    assert order.by_share(1 / 16) == {"a": 8, "b": 6}  # one of 16 would leave 9 of ten: two go
    assert order.by_share(3 / 16) == {"a": 4, "b": 6}
    small = rank([queue("a", range(3), round_to=4), queue("b", range(4), round_to=4)])
    assert len(small.queue) == 0  # nothing between a multiple and all


def test_tied_queues_weigh_what_they_remove():
    order = rank([queue("a", [1, 2, 3, 4], weight=2), queue("b", [1.5, 8, 9, 10])])
    assert order.by_share(3 / 12) == {"a": 3, "b": 3}
    assert order.by_share(2 / 12) == {"a": 3, "b": 4}


def test_a_budget_out_of_reach_quotes_what_was_asked():
    order = rank([queue("a", [1, 2])])
    with pytest.raises(BadInput, match="flops=1"):
        order.to_fit(lambda kept: False, "flops=1 is out of reach")


def test_nothing_to_rank_is_an_empty_order():
    assert rank([]).after(0) == {} and rank([]).by_share(0.5) == {}


scores = st.lists(st.integers(0, 6), min_size=1, max_size=5)
layers = st.lists(st.tuples(scores, st.integers(1, 3), st.integers(1, 3), st.sampled_from("xy")), min_size=1, max_size=4)


def made(layers):
    return [queue(f"g{i}", values, least=least, round_to=r, scope=scope)
            for i, (values, least, r, scope) in enumerate(layers)]  # fmt: skip


@given(layers, st.integers(0, 100))
def test_a_budget_is_met_within_one_step_and_as_one_by_one(layers, percent):
    """The cost couples neighbours, as a chain of layers does: width times the next width."""
    order = rank(made(layers))

    def cost(kept):
        counts = list(kept.values())
        return sum(a * b for a, b in zip([2, *counts], [*counts, 2], strict=True))

    limit = cost(order.after(0)) * percent // 100
    one_by_one = next((n for n in range(len(order.queue) + 1) if cost(order.after(n)) <= limit), None)
    if one_by_one is None:
        with pytest.raises(BadInput):
            order.to_fit(lambda kept: cost(kept) <= limit, "too little")
        return
    found = order.to_fit(lambda kept: cost(kept) <= limit, "too little")
    assert found == order.after(one_by_one) and cost(found) <= limit
    assert one_by_one == 0 or cost(order.after(one_by_one - 1)) > limit


@given(layers)
def test_a_step_lowers_one_queue_and_leaves_lawful_counts(layers):
    queues = made(layers)
    order = rank(queues)
    for step in range(len(order.queue)):
        before, after = order.after(step), order.after(step + 1)
        changed = [q for q in queues if before[q.name] != after[q.name]]
        assert len(changed) == 1 and after[changed[0].name] < before[changed[0].name]
        assert after[changed[0].name] % changed[0].round_to == 0 and after[changed[0].name] >= changed[0].least


@given(st.lists(scores, min_size=1, max_size=4), st.integers(0, 99))
def test_a_share_is_the_exact_count_unless_groups_must_keep_more(lists, percent):
    order = rank([queue(f"g{i}", values) for i, values in enumerate(lists)])
    size = sum(map(len, lists))
    remove = removed_count(size, percent / 100, least=0)
    if remove > size - len(lists) and len(lists) > 1:
        with pytest.raises(BadInput):
            order.by_share(percent / 100)
        return
    kept = order.by_share(percent / 100)
    assert sum(kept.values()) == max(size - remove, 1)
    gone = sorted((value, -i) for i, values in enumerate(lists) for value in sorted(values)[: len(values) - kept[f"g{i}"]])
    stay = sorted((v, -i) for i, values in enumerate(lists) for v in sorted(values)[len(values) - kept[f"g{i}"] :][:-1])
    assert not gone or not stay or gone[-1][0] <= stay[0][0]  # nothing stays, but a last one, that scores below what went
