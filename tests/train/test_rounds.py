"""Rounds: nested masks, rewinding to the bit, going on after a kill, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.core.pq_index import pq_index
from secateurs.errors import BadInput, BrokenPromise
from secateurs.measure import distance
from secateurs.train.snapshots import Snapshot
from tests.papers.networks import batches
from tests.train.rounds_of import STEPS, Loop, dense_run, network, same

EVERY = [
    ("lottery", {"sparsity": 0.7}),
    ("lottery", {"sparsity": 0.7, "rewind": "rate:2"}),
    ("lottery-rewind", {"sparsity": 0.7, "rewind": 3}),
    ("lottery-rewind", {"sparsity": 0.7, "rewind": 3, "strategy": 2}),
    ("sap", {}),
    ("sap", {"options": {"scope": "global", "p": 1.0, "q": 2.0}}),
    ("ap", {"sparsity": 0.7, "options": {"q": 0.1}}),
    ("random", {"sparsity": 0.7}),
    ("taylor", {"sparsity": 0.7, "calibration": batches(2)}),
]
METHODS = pytest.mark.parametrize(("method", "settings"), EVERY, ids=lambda it: it if isinstance(it, str) else "-".join(it))


@METHODS
def test_masks_are_nested_and_counts_exact(method: str, settings: dict[str, Any]) -> None:
    loop = Loop(method, rounds=3, **settings).run()
    kept = [sum(int(m.sum()) for m in masks.values()) for masks in loop.masks]
    for before, after in zip(loop.masks, loop.masks[1:], strict=False):
        assert all(not (after[name] & ~before[name]).any() for name in before)
    assert kept == [row["kept"] for row in loop.rounds.report()] and kept[0] == 192
    if method != "sap":
        cumulative = [192 - round(192 * (1 - 0.3 ** (j / 3))) for j in range(4)]  # 0, 63.5, 106, 134 removed
        assert all(abs(mine - theirs) <= 1 for mine, theirs in zip(kept, cumulative, strict=True))
        assert kept[-1] in (192 - 134, 192 - 135)  # 134.4 of all together, or 100.8 and 33.6 apart
    final = loop.rounds.finish()
    zeros = sum(int((p == 0).sum()) for name, p in final.named_parameters() if name in loop.masks[-1])
    assert zeros == loop.rounds.plan().removed == 192 - kept[-1]


@METHODS
@pytest.mark.parametrize("kill", [(0, 5), (1, 4), (2, STEPS - 1)], ids=str)
def test_a_killed_run_goes_on_to_the_same_bits(method: str, settings: dict[str, Any], kill: tuple[int, int]) -> None:
    whole = Loop(method, rounds=2, **settings).run()
    half = Loop(method, rounds=2, **settings).run(kill=kill)
    resumed = Loop(method, rounds=2, **settings)
    resumed.saved = half.saved
    resumed.run()
    assert resumed.rounds.report() == whole.rounds.report() and resumed.rounds.steps == whole.rounds.steps
    assert same(dict(resumed.rounds.masks), dict(whole.rounds.masks))
    assert same(resumed.rounds.finish().state_dict(), whole.rounds.finish().state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_survivors_and_everything_else_go_back_to_the_first_values(dtype: torch.dtype) -> None:
    loop = Loop("lottery", dtype, sparsity=0.7, rounds=3).run()
    for start, masks in zip(loop.starts, loop.masks, strict=True):
        for name, value in start.items():  # biases, batch norm and its running statistics included
            first = loop.initial[name]
            assert torch.equal(value, first * masks[name] if name in masks else first), name
    assert [int(m.sum()) for m in loop.masks[-1].values()] == [144 - 101, 48 - 34]  # 100.8 and 33.6


def test_round_0_is_the_dense_training_and_the_same_seed_gives_the_same_ticket() -> None:
    first = Loop("lottery", sparsity=0.7, rounds=1).run()
    second = Loop("lottery", sparsity=0.7, rounds=1).run()
    assert same(first.masks[1], second.masks[1])
    trained = {name: value.abs() for name, value in dense_run().items()}
    for name, mask in first.masks[1].items():  # the smallest |w| of the uninterrupted training have gone
        assert trained[name][mask].min() >= trained[name][~mask].max()
    assert [row["round"] for row in first.rounds.report()] == [0, 1] and first.rounds.steps == 2 * STEPS


def test_what_sap_finds_is_told_of_every_round() -> None:
    loop = Loop("sap", rounds=2).run()
    indices = [row["pq_index"] for row in loop.rounds.report()]
    assert len(indices) == 3 and all(0 < index < 1 for index in indices)
    assert loop.rounds.state_dict()["method"]["trajectory"] == indices
    dense, mean = dense_run(), 0.0
    for name in ("0.weight", "4.weight"):  # all rows of a layer are of one length
        mean += sum(pq_index(row) for row in dense[name]) / len(dense[name]) * dense[name].numel() / 192
    assert indices[0] == pytest.approx(mean)


def test_k_0_is_lottery_to_the_bit() -> None:
    tickets = Loop("lottery", sparsity=0.7, rounds=2, allocation="global").run()
    rewound = Loop("lottery-rewind", sparsity=0.7, rounds=2, rewind=0).run()
    assert same(dict(tickets.rounds.masks), dict(rewound.rounds.masks))
    assert same(tickets.model.state_dict(), rewound.model.state_dict())


@pytest.mark.parametrize("k", [1, 3, STEPS])
def test_level_0_from_step_k_is_the_uninterrupted_dense_training(k: int) -> None:
    """Weights, statistics, momentum, learning rate and random state of step k: the rest of training repeats to the bit."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    store = sc.Snapshots(model, [k]).attach(optimizer, schedule)
    torch.manual_seed(5)
    for x, y in batches(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
    store.detach()
    again = Loop("lottery-rewind", sparsity=0.0, rounds=1, rewind=k, snapshot=store[k]).run()
    assert again.rounds.report()[0]["steps"] == STEPS - k
    assert same(again.model.state_dict(), dense_run())
    assert same(model.state_dict(), dense_run())


def test_every_round_goes_on_at_step_k() -> None:
    loop = Loop("lottery-rewind", sparsity=0.0, rounds=2, rewind=3).run()
    assert [(row["first_step"], row["steps"]) for row in loop.rounds.report()] == [(0, 8), (3, 5), (3, 5)]
    assert same(loop.model.state_dict(), dense_run())  # nothing is masked, so each is the dense training
    assert distance(loop.model, dense_run(), loop.rounds.masks).l2 == 0  # and every distance is 0
    restarted = Loop("lottery-rewind", sparsity=0.0, rounds=1, rewind=3, restart=True).run()
    assert not same(restarted.model.state_dict(), dense_run())  # the momentum of step 3 is missing


def test_k_at_the_end_is_the_masked_trained_network() -> None:
    loop = Loop("lottery-rewind", sparsity=0.5, rounds=1, rewind=STEPS).run()
    dense = dense_run()
    for name, value in loop.rounds.finish().state_dict().items():
        assert torch.equal(value, dense[name] * loop.masks[1][name] if name in loop.masks[1] else dense[name])


def test_shares_and_epochs_of_training_are_steps() -> None:
    def begins(**settings: Any) -> int:
        return Loop("lottery-rewind", sparsity=0.5, rounds=1, **settings).run().rounds.report()[1]["first_step"]

    assert begins(rewind=0.25, total_steps=STEPS) == 2 and begins(total_steps=20 * 2) == 2  # 5 % unless said
    assert begins(rewind="1.5 epochs", epoch=2) == 3 and begins(rewind="1 epoch", epoch=4) == 4


def test_learning_rate_rewinding_keeps_the_weights_and_rewinds_the_schedule() -> None:
    rates: list[float] = []
    loop = Loop("lottery", sparsity=0.5, rounds=1, rewind="rate:3")
    loop.run(look=lambda each: rates.append(each.first_step))
    trained = dense_run()
    assert rates == [0, 3]
    for name, value in loop.starts[1].items():
        assert torch.equal(value, trained[name] * loop.masks[1][name] if name in loop.masks[1] else trained[name])


def test_nothing_goes_back_where_nothing_should() -> None:
    loop = Loop("lottery", sparsity=0.5, rounds=1, rewind=None).run()
    assert loop.rounds.report()[1]["first_step"] == STEPS  # the schedule goes on too
    trained = dense_run()
    assert torch.equal(loop.starts[1]["0.bias"], trained["0.bias"])


def test_strategy_2_goes_back_at_the_end_alone() -> None:
    loop = Loop("lottery", sparsity=0.7, rounds=2, strategy=2).run()
    assert torch.equal(loop.starts[1]["0.bias"], dense_run()["0.bias"])
    assert torch.equal(loop.starts[2]["0.bias"], loop.initial["0.bias"])


def test_the_lowest_loss_is_reported_with_its_step() -> None:
    model = network()
    rounds = sc.Rounds(model, "lottery", sparsity=0.5, rounds=1)
    for each in rounds:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        each.attach(optimizer)
        for loss in (3.0, 1.0, 2.0, 1.0):
            optimizer.zero_grad()
            model(batches(1)[0][0]).sum().backward()
            optimizer.step()
            each.record(loss, accuracy=loss / 10)
    assert [row["early_stop"] for row in rounds.report()] == [{"step": 2, "loss": 1.0, "accuracy": 0.1}] * 2
    assert [one["step"] for one in rounds.report()[0]["records"]] == [1, 2, 3, 4]


def test_a_plan_of_it_loads_and_verifies(tmp_path: Any) -> None:
    loop = Loop("lottery", sparsity=0.7, rounds=2).run()
    plan, model = loop.rounds.plan(), loop.rounds.finish()
    plan.save(tmp_path)
    assert sc.Plan.load(tmp_path).diff(plan) == [] and sc.verify(model, plan).ok
    sc.save(model, tmp_path / "model")
    assert same(sc.load(tmp_path / "model", network).state_dict(), model.state_dict())
    assert all(type(module).__module__.startswith("torch.nn") for module in model.modules())
    model(batches(1)[0][0]).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


# -- what is refused ------------------------------------------------------------------------------------------------------


def test_rewinding_without_a_snapshot_says_what_to_do() -> None:
    loop = Loop("lottery-rewind", sparsity=0.5, rounds=1, rewind=STEPS + 5)
    with pytest.raises(BadInput, match="rewind=13 goes back to step 13, of which there is no snapshot: round 0 has taken 8 "
                                       "steps; train it further"):  # fmt: skip
        loop.run()
    assert loop.rounds.number == 0 and loop.rounds.sparsity == 0


@pytest.mark.parametrize(
    ("method", "settings", "says"),
    [
        ("sap", {"sparsity": 0.9}, "'sap' finds how much goes from the weights themselves, so sparsity=0.9 cannot be promised"),
        ("sap", {"overrides": {"0": 0.5}}, "so overrides="),
        ("lottery", {}, "how much"),
        ("lottery", {"sparsity": 0.5, "rounds": 0}, "rounds=0"),
        ("lottery", {"sparsity": 0.5, "strategy": 3}, "strategy=3"),
        ("lottery", {"sparsity": 0.5, "begin": 3}, "begin=3 is for methods that prune inside one training"),
        ("lottery", {"sparsity": 0.5, "rewind": "late"}, "rewind='late': give a step"),
        ("lottery", {"sparsity": 0.5, "rewind": 0.1}, "total_steps is needed"),
        ("lottery", {"sparsity": 0.5, "rewind": "2 epochs"}, "epoch= is needed"),
        ("lottery", {"structure": "2:4", "rounds": 3}, "removes its share at once"),
        ("gmp", {"sparsity": 0.5}, "'gmp' prunes inside one training: use secateurs.Pruner"),
        ("wanda", {"sparsity": 0.5}, "'wanda' goes through a trained model block by block"),
        ("woodfisher", {"sparsity": 0.5}, "'woodfisher' changes what stays when it prunes"),
        ("lottery-rewind", {"sparsity": 0.5}, "rewind=0.05 is a share of training, so total_steps is needed"),
        ("ap", {"sparsity": 0.5, "options": {"of": "sap"}}, "option of='sap' of 'ap'"),
        ("ap", {"sparsity": 0.5, "options": {"of": "gmp"}}, "option of='gmp' of 'ap'"),
        ("lottery", {"sparsity": 0.5, "snapshot": Snapshot(4, {})}, "snapshot= is of step 4, and these rounds go back"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_changed(method: str, settings: dict[str, Any], says: str) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BadInput, match=says.replace("(", r"\(")):
        sc.Rounds(model, method, **settings)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("method", ["lottery", "lottery-rewind", "sap", "ap"])
def test_one_call_and_one_training_send_to_the_rounds(method: str) -> None:
    for call in (sc.prune, sc.Pruner):
        with pytest.raises(BadInput, match=f"use secateurs.Rounds\\(model, '{method}'"):
            call(network(), method, sparsity=0.5, **({"total_steps": 5} if call is sc.Pruner else {}))


def test_a_round_must_be_attached_once() -> None:
    model = network()
    with pytest.raises(BadInput, match=r"round 0 was not trained under its masks: call round\.attach"):
        for _ in sc.Rounds(model, "lottery", sparsity=0.5):
            pass
    with pytest.raises(BadInput, match="attached already"):
        for each in sc.Rounds(model, "lottery", sparsity=0.5):
            each.attach(torch.optim.SGD(model.parameters(), 0.1)).attach(torch.optim.SGD(model.parameters(), 0.1))


def test_a_state_of_other_rounds_is_refused() -> None:
    state = Loop("lottery", sparsity=0.5, rounds=2).rounds.state_dict()
    for share, rounds, says in [(0.6, 2, "sparsity was 0.5, now 0.6"), (0.5, 3, "rounds was 2, now 3")]:
        with pytest.raises(BadInput, match=says):
            Loop("lottery", sparsity=share, rounds=rounds).rounds.load_state_dict(state)
    with pytest.raises(BadInput, match="no state of rounds"):
        Loop("lottery", sparsity=0.5, rounds=2).rounds.load_state_dict({"version": 2})


def test_a_weight_written_to_behind_its_back_breaks_the_promise() -> None:
    loop = Loop("lottery", sparsity=0.5, rounds=1)
    rounds = loop.run().rounds
    with torch.no_grad():
        dict(loop.model.named_parameters())["0.weight"].fill_(1)
    with pytest.raises(BrokenPromise, match=r"'0.weight' are not zero"):
        rounds.finish()


def test_ending_early_is_allowed_and_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop("lottery", sparsity=0.75, rounds=2).run(kill=(1, 4))
    with caplog.at_level("WARNING", logger="secateurs"):
        model = loop.rounds.finish()
    assert "round 1 of 2" in caplog.text
    assert sum(int((p == 0).sum()) for n, p in model.named_parameters() if p.ndim > 1) == 96
    sc.Pruner(model, "magnitude", sparsity=0.8).attach(torch.optim.SGD(model.parameters(), 0.1)).detach()  # nothing holds it
