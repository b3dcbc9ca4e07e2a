"""Verify: every check holds when it should, and fails when something was tampered with."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.core.masks import Masks
from secateurs.errors import BadInput, BrokenPromise, CorruptFile


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


X = torch.linspace(-1, 1, 8).view(2, 4)


def pruned():
    return sc.prune(network(), "magnitude", sparsity=0.5)


def failed(verification):
    return [check.name for check in verification.checks if not check.ok]


def test_an_honest_result_passes_every_check(tmp_path):
    result = pruned()
    sc.save(result.model, tmp_path / "saved", plan=result.plan)
    found = sc.verify(result.model, result.plan, dense=network(), example=X, path=tmp_path / "saved", factory=network)
    assert [(check.name, check.ok) for check in found.checks] == [
        ("exact counts", True),
        ("planned entries are zero", True),
        ("outputs equal those of the masked dense model", True),
        ("reloaded tensors", True),
        ("outputs equal those of the reloaded model", True),
    ]
    assert found and found.ok and found.require() is found
    assert found.checks[0].detail == "21 of 42 entries removed"
    assert result.model.training  # as it was


def test_a_weight_that_came_back_is_found():
    result = pruned()
    gone = (~result.plan.masks["2.weight"]).nonzero()[0].tolist()
    result.model[2].weight.data[gone[0], gone[1]] = 1e-30
    found = sc.verify(result.model, result.plan)
    assert failed(found) == ["planned entries are zero"]
    with pytest.raises(BrokenPromise, match=r"planned entries are zero: 1 non-zero in '2\.weight'"):
        found.require()


def test_a_count_that_does_not_fit_its_mask_is_found():
    result = pruned()
    first, second = result.plan.entries
    lying = dataclasses.replace(result.plan, entries=(dataclasses.replace(first, removed=11), second))
    assert failed(sc.verify(result.model, lying)) == ["exact counts"]


def test_a_kept_weight_that_changed_is_found_by_the_outputs():
    result = pruned()
    result.model[0].bias.data += 0.25
    found = sc.verify(result.model, result.plan, dense=network(), example=X)
    assert failed(found) == ["outputs equal those of the masked dense model"]
    assert float(found.checks[-1].detail.split()[-1]) > 1e-3


def test_a_model_that_is_still_dense_fails():
    found = sc.verify(network(), pruned().plan, dense=network(), example=X)
    assert failed(found) == ["planned entries are zero", "outputs equal those of the masked dense model"]


def test_a_model_that_changed_after_it_was_saved_is_found(tmp_path):
    result = pruned()
    sc.save(result.model, tmp_path / "saved")
    result.model[2].bias.data[0] += 1
    found = sc.verify(result.model, path=tmp_path / "saved", factory=network, example=X)
    assert failed(found) == ["reloaded tensors", "outputs equal those of the reloaded model"]
    assert found.checks[0].detail == "'2.bias' differs"


def test_a_tampered_file_is_an_error(tmp_path):
    sc.save(pruned().model, tmp_path / "saved")
    weights = tmp_path / "saved" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CorruptFile, match="altered"):
        sc.verify(pruned().model, path=tmp_path / "saved", factory=network)


def test_a_plan_of_another_model_is_a_failed_check():
    result = pruned()
    other = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    found = sc.verify(other, result.plan)
    assert failed(found) == ["planned entries are zero"]
    assert "'2.weight' is missing or has another shape" in found.checks[1].detail


def test_dtypes_count(tmp_path):
    model = pruned().model
    sc.save(model, tmp_path / "saved")
    assert failed(sc.verify(copy.deepcopy(model).double(), path=tmp_path / "saved", factory=network)) == ["reloaded tensors"]


class Many(nn.Module):
    """Takes keywords and gives a mapping."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, scale):
        return {"y": self.drop(self.fc(x)) * scale, "name": "many", "z": (x, [scale])}


@pytest.mark.parametrize(
    "example", [{"x": X, "scale": torch.tensor(2.0)}, (X, torch.tensor(2.0))], ids=["keywords", "positions"]
)
def test_examples_and_outputs_of_any_form_in_evaluation_mode(example):
    model = Many()
    result = sc.prune(model, "magnitude", sparsity=0.5)
    assert sc.verify(result.model, result.plan, dense=model, example=example).ok
    result.model.fc.bias.data[0] += 1
    assert not sc.verify(result.model, result.plan, dense=model, example=example).ok


def test_outputs_of_other_shapes_are_a_failed_check():
    class Growing(nn.Module):
        def __init__(self, rows):
            super().__init__()
            self.fc, self.rows = nn.Linear(4, 4), rows

        def forward(self, x):
            return self.fc(x)[: self.rows]

    dense = Growing(2)
    result = sc.prune(dense, "magnitude", sparsity=0.5)
    result.model.rows = 1
    found = sc.verify(result.model, result.plan, dense=dense, example=X)
    assert failed(found) == ["outputs equal those of the masked dense model"]
    assert found.checks[-1].detail == "shapes [(1, 4)] against [(2, 4)]"


def test_outputs_without_tensors_prove_nothing():
    class Silent(nn.Linear):
        def forward(self, x):
            return "done"

    model = Silent(4, 4)
    result = sc.prune(model, "magnitude", sparsity=0.5)
    with pytest.raises(BadInput, match="the model's output, a str, holds no tensors to compare"):
        sc.verify(result.model, result.plan, dense=model, example=X)


def test_nothing_to_verify_against():
    with pytest.raises(BadInput, match="nothing to verify against"):
        sc.verify(network())
    with pytest.raises(BadInput, match="give plan= and example= too"):
        sc.verify(network(), dense=network())


def test_an_empty_mask_table_is_no_proof_of_anything_else():
    result = pruned()
    empty = dataclasses.replace(result.plan, entries=(), masks=Masks({}))
    assert sc.verify(result.model, empty).checks[0].detail == "0 of 0 entries removed"
