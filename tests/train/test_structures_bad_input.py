"""Removing structures where it cannot be done: refused with the reason and the remedy, or frozen with a reason."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.errors import BadInput
from tests.planning.nets import IMAGES, convolutions
from tests.train.unprunable import PROGRAMS, REFUSED, Clipped, Net, ordered

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of functions that go
        yield


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_pruned_says_why_and_what_to_do(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    build, says = REFUSED[name]
    model = build()
    for act in (sc.plan, sc.prune):
        with pytest.raises(BadInput) as caught:
            act(model, structures=["neurons"], example=X, ratio=0.5)
        assert all(words in str(caught.value) for words in says), caught.value
    assert capfd.readouterr() == ("", "")  # the exporter's half-made graph is not for the user


@pytest.mark.parametrize("name", PROGRAMS)
def test_shapes_that_depend_on_the_width_leave_a_program(name: str) -> None:
    build, why = PROGRAMS[name]
    done = sc.prune(build().eval(), "neurons", example=X, ratio=0.5)
    assert done.is_exported and why in done.why and done.verification.ok
    assert sum(p.numel() for p in done.model.parameters()) == done.plan.after.parameters < done.plan.before.parameters


def test_beside_an_unknown_operator_the_rest_goes() -> None:
    model = nn.Sequential(Net(lambda h: ordered(h)), nn.ReLU(), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    done = sc.prune(model, "groups", example=X, ratio=0.5)
    assert ("0.a.weight:0", "no rule for unprunable::ordered") in {(each.axis, each.reason) for each in done.plan.frozen}
    assert {entry.name: entry.kept for entry in done.plan.entries} == {"0.b.weight:0": 1, "2.weight:0": 4}


def test_a_custom_function_of_torch_is_walked_through() -> None:
    done = sc.prune(Net(Clipped.apply).eval(), "neurons", example=X, ratio=0.5)
    assert done.plan.removed == 4 and type(done.model) is Net and done.model(X).shape == (4, 3)


def test_a_model_under_a_pruner_is_not_cut() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = sc.Pruner(model, "gmp", sparsity=0.5, begin=0, end=2).attach(optimizer)
    with pytest.raises(BadInput, match=r"being pruned by a Pruner: call its finish\(\)"):
        sc.prune(model, "neurons", example=X, ratio=0.5)
    assert sc.prune(pruner.finish(), "neurons", example=X, ratio=0.5).plan.removed == 4


@pytest.mark.parametrize(("example", "says"), [
    (None, "pass example="), (torch.randn(4, 7), "does not run on the example"), ((X, X), "takes 2 positional arguments"),
    ({"y": X}, "unexpected keyword argument 'y'"), ("text", "no tensor, tuple of arguments or mapping"),
    (X.to(torch.int64), "does not run on the example"), (X[:0], r"the example is empty, of shape \(0, 6\)"),
])  # fmt: skip
def test_a_wrong_example_says_what_is_wrong(example, says) -> None:
    model = Net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BadInput, match=says):
        sc.prune(model, "neurons", example=example, ratio=0.5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("amount", "says"), [
    ({"ratio": 1.0}, "at least 0 and below 1"), ({"flops": 0.0}, "share left"), ({"params": 10}, "out of reach"),
    ({"bytes": "10B"}, "out of reach"), ({"ratio": 0.5, "least": 0}, "at least 1"), ({"flops": 1e-6}, "out of reach"),
])  # fmt: skip
def test_no_layer_is_emptied(amount, says) -> None:
    with pytest.raises(BadInput, match=says):
        sc.prune(Net().eval(), "neurons", example=X, **amount)


def test_a_share_that_would_empty_a_layer_leaves_one() -> None:
    done = sc.prune(Net().eval(), "neurons", example=X, ratio=0.99)
    assert [entry.kept for entry in done.plan.entries] == [1] and done.model(X).shape == (4, 3)


def test_the_module_of_a_program_is_not_saved_in_a_folder(tmp_path) -> None:
    done = sc.prune(PROGRAMS["a mean"][0]().eval(), "neurons", example=X, ratio=0.5)
    with pytest.raises(BadInput, match=r"sc\.export_onnx\(model, example, 'model\.onnx'\)"):
        sc.save(done.model, tmp_path / "small")
    assert not list(tmp_path.iterdir())
    torch.export.save(torch.export.export(done.model, (X,)), tmp_path / "small.pt2")
    again = torch.export.load(tmp_path / "small.pt2").module()
    assert torch.allclose(again(X), done.model(X), atol=1e-6)


def test_a_plain_network_of_fx_is_saved(tmp_path) -> None:
    """The user's factory can make it again."""

    def build() -> nn.Module:
        return torch.fx.symbolic_trace(nn.Sequential(nn.Linear(6, 2)))

    model = build()
    sc.save(model, tmp_path / "traced")
    assert torch.equal(sc.load(tmp_path / "traced", build)(X), model(X))


def test_what_is_there_but_frozen_is_said_with_the_reason() -> None:
    with pytest.raises(
        BadInput, match=r"no neurons that could go: what it has of them is frozen \(the model returns it\); it has"
    ):
        sc.plan(convolutions(), "neurons", example=IMAGES, ratio=0.5)
