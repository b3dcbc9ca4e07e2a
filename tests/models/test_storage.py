"""Weights that cannot be pruned as they are stored are refused by name, with the remedy."""

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput
from secateurs.models import check, check_storage, select, survey
from secateurs.models.storage import storage_problem


class Packed(torch.Tensor):
    """A stand-in for the tensor subclasses of quantisation libraries."""

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        assert function is torch.ops.aten.detach.default, f"{function} on packed values"
        return packed_values()


def layer_with(parameter):
    layer = nn.Linear(4, 4, bias=False)
    del layer.weight
    layer.register_parameter("weight", parameter)
    return layer


def packed_values():
    return torch.Tensor._make_wrapper_subclass(Packed, (4, 4))


def frozen(tensor):
    return nn.Parameter(tensor, requires_grad=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_four_float_types_are_fine(dtype):
    found = survey(nn.LSTM(2, 2, num_layers=2).to(dtype))
    check(found)
    for weight in found.weights:
        check_storage(weight)


def test_a_plain_subclass_of_parameter_and_a_turned_weight_are_fine():
    class Marked(nn.Parameter):
        pass

    check(survey(layer_with(Marked(torch.ones(4, 4)))))
    check(survey(layer_with(nn.Parameter(torch.ones(4, 4).t()))))


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    "parameter, message",
    [
        (lambda: nn.Parameter(torch.empty(4, 4, device="meta")), "is on the meta device and has no values: load the model"),
        (lambda: frozen(torch.eye(4).to_sparse_csr()), "is stored as torch.sparse_csr: call .to_dense()"),
        (lambda: frozen(torch.eye(4).to_sparse()), "is stored as torch.sparse_coo: call .to_dense()"),
        (lambda: frozen(torch.ones(4, 4, dtype=torch.int8)), "is stored as torch.int8: prune in float32"),
        (lambda: frozen(torch.ones(4, 4, dtype=torch.uint8)), "is stored as torch.uint8: prune in float32"),
        (lambda: frozen(torch.ones(4, 4).to(torch.float8_e4m3fn)), "is stored as torch.float8_e4m3fn: prune in float32"),
        (lambda: nn.Parameter(torch.ones(4, 1).expand(4, 4)), "has entries that share memory with each other"),
        (lambda: frozen(packed_values()), "Packed: prune the plain model, then quantise"),
    ],
)
def test_each_storage_that_cannot_be_ranked_is_refused_with_its_remedy(parameter, message):
    found = survey(nn.ModuleDict({"fc": layer_with(parameter())}))
    with pytest.raises(BadInput) as one:
        check_storage(found.weights[0])
    assert str(one.value).startswith("'fc.weight' ") and message in str(one.value)
    with pytest.raises(BadInput) as whole:
        check(found)
    assert str(whole.value) == f"cannot prune this model as it is: {one.value}"


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_tensor_is_refused():
    quantised = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    assert "is stored as torch.qint8" in storage_problem(frozen(quantised))


def test_what_is_not_selected_is_not_looked_at():
    found = survey(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta")))
    check(select(found, include=("0",)))
    with pytest.raises(BadInput, match=r"'1.weight' is on the meta device"):
        check(found)


def test_many_bad_weights_are_one_message():
    with pytest.raises(BadInput, match=r"'0.weight' .*'1.weight' .*'2.weight' .*\(and 4 more\)$"):
        check(survey(nn.Sequential(*(nn.Linear(2, 2, device="meta") for _ in range(7)))))


def test_two_parameters_on_one_memory_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = nn.Parameter(model[0].weight)
    with pytest.raises(BadInput, match=r"'0.weight' and '2.weight' share memory but are two parameters: tie them by giving"):
        check(survey(model))
    model[2].weight = nn.Parameter(model[0].weight.t())
    with pytest.raises(BadInput, match="share memory"):
        check(survey(model))


def test_neighbours_in_one_flat_memory_are_fine():
    flat = torch.zeros(32)
    model = nn.Sequential(layer_with(nn.Parameter(flat[:16].view(4, 4))), layer_with(nn.Parameter(flat[16:].view(4, 4))))
    check(survey(model))
    columns = torch.zeros(4, 8)
    check(survey(nn.Sequential(layer_with(nn.Parameter(columns[:, :4])), layer_with(nn.Parameter(columns[:, 4:])))))
