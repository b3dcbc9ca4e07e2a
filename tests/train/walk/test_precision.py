"""Passes in a narrower dtype: what is narrowed, and what is not."""

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.errors import BadInput
from secateurs.models import survey
from secateurs.train.walk import walk


def model_and_batches():
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8, bias=False) for _ in range(3)]
    for layer in layers:
        layer.weight.data.copy_(torch.eye(8))
    return nn.Sequential(*layers), [torch.full((2, 8), 1 + 2**-12)]  # not a bfloat16, nor a float16


def seen(**how):
    """The first layer's statistics, the second one's, and the dtype of the first one's weight meanwhile."""
    model, batches = model_and_batches()
    found = []

    def visit(block):
        (inputs,) = block.statistics.values()
        found.append(inputs["gram"][0].gram)

    walk(model, survey(model), batches, ["gram"], visit, **how)
    return found, {p.dtype for p in model.parameters()}


@pytest.mark.parametrize("compute", ("bfloat16", "float16"))
def test_products_are_narrowed_and_sums_are_not(compute):
    (first, second, _), dtypes = seen(compute=compute)
    exact = 2 * (1 + 2**-12) ** 2
    assert torch.equal(first, torch.full((8, 8), exact)) and dtypes == {torch.float32}  # what came in is as it was
    assert second.dtype == torch.float32 and torch.equal(second, torch.full((8, 8), 2.0))  # what a layer gave is rounded
    (_, same, _), _ = seen()
    assert torch.equal(same, first)


def test_it_is_refused_where_it_says_nothing_and_told_apart_on_resuming(tmp_path):
    model, batches = model_and_batches()
    with pytest.raises(BadInput, match=r"compute='bfloat61': use 'bfloat16' or 'float16', or nothing; did you mean 'bfloat16'"):
        sc.prune(model, "wanda", sparsity=0.5, calibration=batches, compute="bfloat61")
    with pytest.raises(BadInput, match="compute= and state= are for methods that go block by block"):
        sc.prune(model, "magnitude", sparsity=0.5, compute="bfloat16")
    sc.prune(model, "wanda", sparsity=0.5, calibration=batches, compute="bfloat16", state=tmp_path)
    with pytest.raises(BadInput, match="which differs in compute"):
        sc.prune(model, "wanda", sparsity=0.5, calibration=batches, state=tmp_path)
