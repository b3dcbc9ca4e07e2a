"""The table of `secateurs inspect`."""

import torch
from torch import nn

from secateurs.models import inspect_rows, select, survey


def test_rows_stand_in_model_order_with_zeros_counted_now():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0, -0.0], [2.0, 0.0, 3.0]]))
        model[2].weight.fill_(1.0)
    rows = inspect_rows(select(survey(model), include=("0",)))
    assert [row["name"] for row in rows] == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight"]
    assert rows[0] == {"name": "0.weight", "kind": "linear", "shape": [2, 3], "size": 6, "zeros": 3, "sparsity": 0.5,
                       "prunable": True, "reason": ""}  # fmt: skip
    assert rows[1] == {"name": "0.bias", "kind": None, "shape": [2], "size": 2, "zeros": None, "sparsity": None,
                       "prunable": False, "reason": "a bias"}  # fmt: skip
    assert rows[4]["reason"] == "not named by include=['0']"


def test_a_weight_that_cannot_be_read_is_not_prunable():
    (row,) = inspect_rows(survey(nn.Linear(2, 2, bias=False, device="meta")))
    assert (row["kind"], row["zeros"], row["prunable"]) == ("linear", None, False)
    assert "meta device" in row["reason"]
