"""WoodFisher and M-FAC as methods: in one shot, in several steps, while training, in two processes."""

import itertools

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.core.fisher import Estimate
from secateurs.errors import BadInput, NotFinite
from secateurs.measure import peak_memory
from secateurs.papers.weights.woodfisher import geometric
from secateurs.statistics.fisher import inverse_fisher
from secateurs.train.losses import default_loss
from tests.papers.networks import batches, tiny

BOTH = pytest.mark.parametrize("method", ["woodfisher", "m-fac"])


def values(model):
    return {name: p.detach() for name, p in model.named_parameters() if p.dim() > 1}


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(values(a).values(), values(b).values(), strict=True))


def pruned(method="woodfisher", sparsity=0.6, model=None, **options):
    said = {"gradients": 16, **({"recompute": 1} if method == "m-fac" else {}), **options}
    return sc.prune(model or tiny(), method, sparsity=sparsity, calibration=batches(2), options=said).model


def test_geometric_takes_the_same_share_of_what_is_left():
    assert geometric(0.0, 0.75, 2) == pytest.approx([0.5, 0.75])
    assert geometric(0.5, 0.9375, 3) == pytest.approx([0.75, 0.875, 0.9375])
    assert geometric(0.2, 0.7, 1) == [0.7] and geometric(0.0, 1.0, 3)[-1] == 1.0


@BOTH
@pytest.mark.parametrize("how", ["sum", "exact"])
def test_recomputing_is_pruning_again_at_the_new_weights(method, how):
    first, second = geometric(0.0, 0.75, 2)
    by_hand = pruned(method, second, pruned(method, first, compensation=how), compensation=how)
    assert equal(by_hand, pruned(method, 0.75, compensation=how, recompute=2))
    assert not equal(by_hand, pruned(method, 0.75, compensation=how))


def test_a_loader_that_shuffles_does_so_by_the_seed():
    data = torch.utils.data.TensorDataset(*(torch.cat(parts) for parts in zip(*batches(8), strict=True)))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)

    def run(before, **said):
        torch.manual_seed(before)
        options = {"gradients": 16, "recompute": 2}
        return sc.prune(tiny(), "woodfisher", sparsity=0.6, calibration=loader, options=options, **said).model

    assert equal(run(1), run(2))
    assert not equal(run(1), run(1, seed=5))


@BOTH
def test_without_compensation_what_stays_is_not_touched(method):
    dense, plain, scaled = tiny(), pruned(method, compensation="none"), pruned(method, scale=0.0)
    assert equal(plain, scaled)
    for name, value in values(plain).items():
        assert torch.equal(value[value != 0], values(dense)[name][value != 0])
    moved = [int(((v != 0) & (v != values(dense)[n])).sum()) for n, v in values(pruned(method)).items()]
    assert sum(moved) > 100


def test_m_fac_and_woodfisher_agree_where_their_blocks_do():
    for block in (0, 12):
        a, b = (pruned(method, block=block) for method in ("woodfisher", "m-fac"))
        assert equal(a, b)


def test_layers_are_ranked_together_or_each_for_itself():
    def shares(**said):
        plan = sc.prune(tiny(), "woodfisher", sparsity=0.5, calibration=batches(2), options={"gradients": 16}, **said).plan
        return [entry.removed for entry in plan.entries]

    assert shares(allocation="uniform") == [72, 96, 32]
    assert sum(shares()) == 200 and shares() != [72, 96, 32]


def test_the_statistic_ranks_for_other_methods_too():
    plan = sc.prune(tiny(), "magnitude", criterion="obs", sparsity=0.5, calibration=batches(50)).plan
    said = {"block": 2000, "compensation": "none"}
    same = sc.prune(tiny(), "woodfisher", allocation="uniform", sparsity=0.5, calibration=batches(50), options=said).plan
    assert plan.diff(same) == []


def test_the_update_lowers_the_loss_that_pruning_costs():
    """Linear regression to noisy targets: there the Fisher matrix of the residuals is the Hessian but for a factor."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(12, 12, generator=generator)
    x = torch.randn(400, 12, generator=generator) @ mix
    y = x @ torch.randn(12, 1, generator=generator) + torch.randn(400, 1, generator=generator)
    model = nn.Linear(12, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)

    def loss(net, batch):
        return (net(batch[0]) - batch[1]).square().mean()

    def cost(**said):
        done = sc.prune(model, "woodfisher", sparsity=0.5, calibration=[(x, y)], loss=loss, options={"damping": 1e-6, **said})
        return loss(done.model, (x, y)).item()

    def fitted(kept):
        return loss(lambda inputs: inputs @ torch.linalg.lstsq(inputs, y).solution, (x[:, kept], y)).item()

    exact, summed, none = cost(compensation="exact"), cost(), cost(compensation="none")
    assert exact < none and exact < summed
    best = min(fitted(list(kept)) for kept in itertools.combinations(range(12), 6))
    assert best <= exact < best + 0.5 * (none - best)


# -- while training ---------------------------------------------------------------------------------------------------


def trained(data, **said):
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    given = {"sparsity": 0.7, "schedule": "cubic", "begin": 2, "end": 6, "every": 2, "options": {"gradients": 16}, **said}
    pruner = sc.Pruner(model, "woodfisher", data=data, **given).attach(optimizer)
    for x, y in batches(8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        for name, value in values(model).items():
            assert not value[~pruner.masks[name]].any()
    assert [row["sparsity"] for row in pruner.history] == [0.0, 0.6125, 0.7]
    return pruner.finish()


def test_batches_may_come_by_number():
    listed = batches(3)
    assert equal(trained(listed), trained(lambda number: listed[number]))


@pytest.mark.parametrize("enforcement", ["overwrite", "keep", "straight-through"])
def test_any_enforcement_holds_what_it_removes(enforcement):
    said = {"enforcement": enforcement, "data": batches(2), "options": {"gradients": 16}}
    pruner = sc.Pruner(tiny(), "woodfisher", sparsity=0.7, **said)
    pruner.attach(torch.optim.SGD([w.parameter for w in pruner.weights], 0.1))  # ranks now
    assert sum(int((value == 0).sum()) for value in values(pruner.finish()).values()) == 280


def test_a_pruner_asks_for_batches_of_its_own():
    with pytest.raises(BadInput, match=r"'woodfisher' takes batches of its own .*data=, a list of batches or a function"):
        sc.Pruner(tiny(), "woodfisher", sparsity=0.5)


# -- memory and bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [0, 128])
def test_m_fac_takes_little_more_memory_than_its_gradients(block, monkeypatch):
    monkeypatch.setattr("secateurs.core.fisher_factors._ENTRIES", 1 << 14)  # in float64 at a time
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 200), nn.Tanh(), nn.Linear(200, 4))
    data = [(torch.randn(64, 256), torch.randint(4, (64,)))]
    weights, said = values(model), Estimate(64, 1, block)
    parameters = {name: p for name, p in model.named_parameters() if name in weights}

    def run():
        found = inverse_fisher(model, parameters, data, default_loss, said)
        masks = {name: value.abs() > value.abs().median() for name, value in weights.items()}
        return found.compensated(weights, masks)

    gradients = 4 * 64 * sum(p.numel() for p in parameters.values())
    assert gradients < peak_memory(run) < 1.2 * gradients


def test_a_failed_ranking_leaves_the_weights_as_they_were():
    class Fragile:
        calls = 0

        def __call__(self, model, batch):
            self.calls += 1
            return default_loss(model, batch) * (float("nan") if self.calls > 20 else 1.0)

    model, loss = tiny(), Fragile()
    before = {name: value.clone() for name, value in values(model).items()}
    with pytest.raises(NotFinite, match=r"gradient 4 of '0\.weight'"):
        sc.prune(model, "woodfisher", sparsity=0.5, calibration=batches(2), loss=loss, inplace=True,
                 options={"gradients": 16, "recompute": 2})  # fmt: skip
    assert loss.calls == 21
    assert all(torch.equal(value, before[name]) for name, value in values(model).items())


@BOTH
def test_what_cannot_be_is_told_before_anything_happens(method):
    with pytest.raises(BadInput, match=r"takes 64 examples|takes 400 examples"):
        sc.prune(tiny(), method, sparsity=0.5, calibration=batches(2))
    with pytest.raises(BadInput, match=r"a Fisher matrix takes gradients .* give calibration= to sc\.prune"):
        sc.prune(tiny(), method, sparsity=0.5)
    wrong = {"gradients": 0, "block": -1, "damping": 0.0, "compensation": "all", "samples": 1.5, "recompute": 0}
    for key, value in wrong.items():
        with pytest.raises(BadInput, match=f"option {key}={value!r} of {method!r}"):
            sc.prune(tiny(), method, sparsity=0.5, calibration=batches(2), options={key: value})
