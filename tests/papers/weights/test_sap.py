"""SAP: amounts and masks against plain loops over groups, every scope, and where it ends."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from secateurs.core.in_rounds import RoundEnd, Survivors
from secateurs.core.layout import Layout
from secateurs.errors import BadInput, NotFinite
from secateurs.papers.weights.sap import Sap, begins_to_rise


def removed_by_hand(values: list[float], p: float, q: float, eta: float, gamma: float, beta: float) -> int:
    d = len(values)
    if d == 0:
        return 0
    norms = [sum(abs(v) ** n for v in values) ** (1 / n) for n in (p, q)]
    index = 1 - d ** (1 / q - 1 / p) * norms[0] / norms[1]
    r = d * (1 + eta) ** (-q / (q - p)) * (1 - index) ** (p * q / (q - p))
    return math.floor(d * min(gamma * (1 - r / d), beta) + 1e-9)


def end(*layers: Survivors) -> RoundEnd:
    return RoundEnd(layers, None, lambda spared: {})


def drawn(seed: int, *shape: int, share: float = 1.0, layout: Layout = Layout()) -> Survivors:
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(shape, generator=generator) < share
    return Survivors(f"w{seed}", torch.randn(shape, generator=generator) ** 3 * kept, kept, layout)


OPTIONS = [
    {}, {"p": 1.0, "q": 2.0}, {"eta": 0.1}, {"gamma": 1.2}, {"gamma": 7.0, "beta": 0.6}, {"p": 0.2, "eta": 1.0, "beta": 0.9},
]  # fmt: skip


@pytest.mark.parametrize("scope", ["neuron", "layer", "global"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_group_loses_its_own_smallest_survivors(scope: str, options: dict[str, Any]) -> None:
    layers = [drawn(1, 6, 20, share=0.7), drawn(2, 9, 4, share=0.5, layout=Layout(1, 0)), drawn(3, 3, 2, 3, 3)]
    masks = Sap({"scope": scope, **options}).cut(end(*layers))
    assert masks is not None
    said = {"p": 0.5, "q": 1.0, "eta": 0.0, "gamma": 1.0, "beta": 0.9, **options}
    for group in _groups(layers, scope):
        alive = sorted((abs(float(v)), name, i) for name, i, v, kept in group if kept)
        c = removed_by_hand([size for size, _, _ in alive], **said)
        gone = {(name, i) for _, name, i in alive[:c]}
        for name, i, _, kept in group:
            assert bool(masks[name].reshape(-1)[i]) == (kept and (name, i) not in gone)


def _groups(layers: list[Survivors], scope: str) -> list[list[tuple[str, int, float, bool]]]:
    """(layer, flat index, value, kept) by group, by plain loops."""
    found: dict[Any, list[tuple[str, int, float, bool]]] = {}
    for layer in layers:
        places = torch.arange(layer.values.shape[layer.layout.out_dim])
        shape = [1] * layer.values.ndim
        shape[layer.layout.out_dim] = -1
        rows = places.reshape(shape).expand(layer.values.shape).reshape(-1).tolist()
        entries = zip(layer.values.reshape(-1).tolist(), layer.kept.reshape(-1).tolist(), rows, strict=True)
        for i, (value, kept, row) in enumerate(entries):
            key = {"neuron": (layer.name, row), "layer": layer.name, "global": None}[scope]
            found.setdefault(key, []).append((layer.name, i, value, kept))
    return list(found.values())


def test_six_weights_by_eye() -> None:
    """|w| = 4, 4, 4, 1, 1, 1: I = 1 - 6^-1 (2 + 2 + 2 + 1 + 1 + 1)^2 / 15 = 0.1, so one of six goes if gamma is 2."""
    layer = Survivors("w", torch.tensor([[4.0, -1.0, 4.0, 1.0, -4.0, 1.0]]), torch.ones(1, 6, dtype=torch.bool))
    method = Sap({"gamma": 2.0})
    masks = method.cut(end(layer))
    assert method.told()["pq_index"] == pytest.approx(0.1)
    assert masks is not None and masks["w"].tolist() == [[True, True, True, True, True, False]]  # of equal ones the last goes


def test_empty_and_single_neurons_lose_nothing_and_nothing_to_lose_ends_the_rounds() -> None:
    kept = torch.tensor([[False, False, False], [True, False, False], [True, True, True]])
    values = torch.tensor([[1.0, 2.0, 3.0], [5.0, 1.0, 1.0], [0.001, 1.0, 9.0]]) * kept
    masks = Sap({"gamma": 1.0}).cut(end(Survivors("w", values, kept)))
    assert masks is not None and masks["w"].tolist() == [[False] * 3, [True, False, False], [False, True, True]]
    assert Sap().cut(end(Survivors("w", torch.ones(4, 4), torch.ones(4, 4) > 0))) is None


def test_a_rise_after_a_fall_ends_the_rounds_where_it_is_asked_to() -> None:
    assert not begins_to_rise([0.3]) and not begins_to_rise([0.2, 0.3]) and not begins_to_rise([0.3, 0.2, 0.1])
    assert begins_to_rise([0.3, 0.2, 0.25]) and not begins_to_rise([0.1, 0.2, 0.3])
    layer = drawn(4, 5, 30)
    for stop, ended in [("rise", True), ("never", False)]:
        method = Sap({"stop": stop})
        method.load_state_dict({"trajectory": [0.4, 0.01]})
        assert (method.cut(end(layer)) is None) == ended
        assert method.state_dict()["trajectory"][:2] == [0.4, 0.01]


def test_what_is_not_finite_and_norms_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(NotFinite, match="'w' has 1 non-finite"):
        Sap().cut(end(Survivors("w", torch.tensor([[1.0, float("nan")]]), torch.ones(1, 2) > 0)))
    with pytest.raises(BadInput, match=r"p=1.0, q=1.0"):
        Sap({"p": 1.0})
