"""Timing: the order of the runs, the summary of given times, and that nothing is left changed. No speed is asserted."""

from collections import namedtuple

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.measure import Latency, compare_latency, latency, peak_memory
from secateurs.measure.mode import to_device


def test_rivals_run_in_turns_each_round_starting_one_further():
    calls = []
    compare_latency({name: lambda name=name: calls.append(name) for name in "abc"}, repeats=4, warmup=0)
    assert "".join(calls) == "abcbcacababc"


def test_warm_up_runs_are_not_timed():
    calls = []
    found = compare_latency({"a": lambda: calls.append(1)}, repeats=3, warmup=2)
    assert (len(calls), len(found["a"].runs)) == (5, 3)
    assert all(seconds >= 0 for seconds in found["a"].runs)


def test_median_and_spread_of_given_runs():
    found = Latency(runs=(5.0, 1.0, 2.0, 3.0, 100.0), threads=1, device="cpu")
    assert (found.median_s, found.iqr_s) == (3.0, 3.0)
    assert Latency((2.0,), 1, "cpu").iqr_s == 0.0


@pytest.mark.parametrize("example", [torch.ones(1, 2), (torch.ones(1, 2),), {"input": torch.ones(1, 2)}])
def test_model_runs_in_evaluation_mode_without_gradients_and_is_restored(example):
    seen = []

    class Watch(nn.Linear):
        def forward(self, input):
            seen.append((self.training, torch.is_grad_enabled()))
            return super().forward(input)

    model = Watch(2, 2).train()
    found = latency(model, example, repeats=2, warmup=1)
    assert seen == [(False, False)] * 3
    assert model.training and torch.is_grad_enabled()
    assert (len(found.runs), found.device) == (2, "cpu")


def test_thread_count_is_used_reported_and_restored():
    before, seen = torch.get_num_threads(), []
    other = 2 if before == 1 else 1
    found = compare_latency({"a": lambda: seen.append(torch.get_num_threads())}, repeats=1, warmup=0, threads=other)
    assert (seen, found["a"].threads, torch.get_num_threads()) == ([other], other, before)

    def fail():
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        compare_latency({"a": fail}, threads=other)
    assert torch.get_num_threads() == before


def test_bad_arguments():
    with pytest.raises(BadInput, match="at least one call"):
        compare_latency({})
    with pytest.raises(BadInput, match="repeats=0"):
        compare_latency({"a": lambda: None}, repeats=0)
    with pytest.raises(BadInput, match="threads=0"):
        compare_latency({"a": lambda: None}, threads=0)


def test_examples_move_inside_containers():
    Pair = namedtuple("Pair", "x y")
    moved = to_device({"a": [torch.ones(1)], "b": Pair(torch.ones(1), "text")}, torch.device("meta"))
    assert moved["a"][0].is_meta and moved["b"].x.is_meta and moved["b"].y == "text"


def test_peak_memory_counts_what_is_alive_at_once():
    def chain():
        x = torch.zeros(1000)  # 4,000 bytes
        y = x + 1  # 8,000 alive
        x = y * 2  # 12,000 for a moment: the first is still held until this line has its result
        x.view(10, 100).add_(1)  # a view and an in-place result bring nothing new
        del x, y
        return torch.zeros(10)

    assert peak_memory(chain) == 12_000
    assert peak_memory(lambda: None) == 0


def test_peak_memory_does_not_count_what_was_there():
    given = torch.zeros(1_000_000)
    assert peak_memory(lambda: given.sum()) == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda():
    model = nn.Linear(1000, 1000, bias=False).cuda()
    assert latency(model, torch.ones(1, 1000), repeats=3).device.startswith("cuda")
    assert peak_memory(lambda: torch.zeros(1 << 20, device="cuda"), "cuda") == 4 << 20
