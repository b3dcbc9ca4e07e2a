"""Times of single operators at other widths: remembered, and what rounding they speak for."""

import pytest
import torch

from secateurs.errors import BadInput
from secateurs.measure import widths
from secateurs.measure.widths import Call, Shaped, TimeTable, best_rounding

LINEAR = Call(torch.ops.aten.linear.default, (Shaped((4, 8)), Shaped((16, 8)), None))


def test_a_call_runs_with_tensors_of_the_shapes():
    run = LINEAR.on(torch.device("cpu"))
    assert run().shape == (4, 16)
    cat = Call(torch.ops.aten.cat.default, ((Shaped((2, 3)), Shaped((2, 4))), 1))
    assert cat.on(torch.device("cpu"))().shape == (2, 7)
    words = Call(torch.ops.aten.embedding.default, (Shaped((5, 3)), Shaped((2,), torch.int64)))
    assert words.on(torch.device("cpu"))().shape == (2, 3)


def test_every_call_is_measured_once(monkeypatch):
    timed = []
    true = widths.compare_latency
    monkeypatch.setattr(widths, "compare_latency", lambda *a, **k: timed.append(1) or true(*a, **k))
    table = TimeTable(repeats=3)
    first = table.seconds(LINEAR)
    again = Call(torch.ops.aten.linear.default, (Shaped((4, 8)), Shaped((16, 8)), None))
    assert first > 0 and table.seconds(again) == first and len(timed) == 1
    table.seconds(Call(torch.ops.aten.linear.default, (Shaped((4, 8)), Shaped((15, 8)), None)))
    assert len(timed) == 2


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(BadInput, match="cannot be measured"):
        TimeTable().seconds(Call(torch.ops.aten.linear.default, (Shaped((4, 8)), Shaped((16, 9)), None)))


def test_the_smallest_multiple_that_costs_no_more_per_channel():
    flat = [(64, 6.4), (48, 4.8), (56, 5.6), (60, 6.0), (61, 6.1)]
    assert best_rounding(flat) == 1
    eights = [(64, 6.4), (48, 4.8), (56, 5.6), (60, 6.6), (61, 7.0)]
    assert best_rounding(eights) == 8
    assert best_rounding([(64, 6.4), (48, 5.2), (56, 6.2), (60, 6.6), (61, 7.0)]) == 32
    with pytest.raises(BadInput):
        best_rounding([])
