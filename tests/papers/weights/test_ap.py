"""AP: exactly as many weights as X alone, of which q by movement, negative ones; q = 0 is X."""

from __future__ import annotations

import math

import pytest
import torch

from secateurs.core.in_rounds import RoundEnd, Survivors
from secateurs.errors import BadInput
from secateurs.papers.weights.ap import Ap
from tests.train.rounds_of import Loop, same


def magnitude(values: torch.Tensor, kept: torch.Tensor, remove: int) -> torch.Tensor:
    order = torch.where(kept, values.abs(), torch.tensor(-1.0)).reshape(-1).argsort(stable=True)
    mask = torch.ones(values.numel(), dtype=torch.bool)
    mask[order[:remove]] = False
    return mask.reshape(values.shape)


def end(values: torch.Tensor, began: torch.Tensor, remove: int) -> RoundEnd:
    kept = torch.ones_like(values, dtype=torch.bool)
    layer = Survivors("w", values, kept, began=began)
    return RoundEnd([layer], remove, lambda spared: {"w": magnitude(values, kept, remove - spared)})


VALUES = torch.tensor([[0.1, -0.2, 3.0, -4.0, 5.0], [-6.0, 7.0, -8.0, 9.0, -10.0]])
BEGAN = torch.tensor([[0.1, -0.2, 3.0, -1.0, 5.0], [-5.9, 7.0, -8.5, 9.0, -3.0]])


@pytest.mark.parametrize(
    ("q", "sign", "gone"),
    [
        (0.0, "negative", [0, 1, 2, 3]),  # X: the four smallest
        (0.1, "negative", [0, 1, 2, 5]),  # of those left that are negative -6 has moved least
        (0.2, "negative", [0, 1, 5, 7]),  # then -8
        (0.2, "positive", [0, 1, 6, 8]),  # 3, 5, 7 and 9 have not moved; of equal movement the last go first
    ],
)
def test_ten_weights_by_eye(q: float, sign: str, gone: list[int]) -> None:
    masks = Ap({"q": q, "sign": sign}).cut(end(VALUES, BEGAN, 4))
    found = (~masks["w"]).reshape(-1).nonzero().reshape(-1).tolist()
    assert found == gone


def test_against_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    for remove in (12, 37, 60):
        values, began = torch.randn(2, 12, 10, generator=generator)
        masks = Ap({"q": 0.1}).cut(end(values, began, remove))
        n = math.floor(0.1 * 120)
        x = magnitude(values, torch.ones(12, 10) > 0, remove - n)
        moved = [(float(abs(v - b)), i) for i, (v, b, k) in enumerate(zip(values.reshape(-1), began.reshape(-1), x.reshape(-1),
                                                                         strict=True)) if k and v < 0]  # fmt: skip
        taken = {i for _, i in sorted(moved)[:n]}
        expected = [bool(k) and i not in taken for i, k in enumerate(x.reshape(-1))]
        assert masks["w"].reshape(-1).tolist() == expected
        assert int((~masks["w"]).sum()) == remove


@pytest.mark.parametrize("of", ["global-magnitude", "magnitude", "lottery", "random"])
def test_q_0_is_the_other_pruner_to_the_bit(of: str) -> None:
    alone = Loop(of, sparsity=0.7, rounds=2).run()
    with_ap = Loop("ap", sparsity=0.7, rounds=2, options={"of": of, "q": 0.0}).run()
    assert same(dict(alone.rounds.masks), dict(with_ap.rounds.masks))
    assert same(alone.model.state_dict(), with_ap.model.state_dict())


@pytest.mark.parametrize("of", ["global-magnitude", "magnitude", "lottery"])
def test_as_many_go_in_every_round_and_survivors_are_the_first_values(of: str) -> None:
    alone = Loop(of, sparsity=0.7, rounds=3).run()
    loop = Loop("ap", sparsity=0.7, rounds=3, options={"of": of, "q": 0.1}).run()
    assert [row["kept"] for row in loop.rounds.report()] == [row["kept"] for row in alone.rounds.report()]
    assert not same(dict(loop.rounds.masks), dict(alone.rounds.masks))
    for name, mask in loop.masks[-1].items():
        assert torch.equal(loop.starts[-1][name], loop.initial[name] * mask)


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(BadInput, match=r"option q=0.5 of 'ap' takes 4 negative weights in this round; .* only 2 are left"):
        Ap({"q": 0.5}).cut(end(torch.tensor([[-1.0, -2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]]), torch.zeros(1, 8), 4))
