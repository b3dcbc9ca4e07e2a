"""Wrappers come off; what is inside is the same object."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from secateurs.errors import BadInput
from secateurs.models import survey, unwrap


def test_a_plain_model_is_itself():
    model = nn.Linear(2, 2)
    assert unwrap(model) is model


def test_wrappers_come_off_however_nested():
    model = nn.Linear(2, 2)
    assert unwrap(nn.DataParallel(model)) is model
    assert unwrap(torch.compile(model)) is model
    assert unwrap(torch.compile(nn.DataParallel(torch.compile(model)))) is model
    averaged = AveragedModel(model)
    assert unwrap(averaged) is averaged.module


def test_distributed_comes_off(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = nn.Linear(2, 2)
        assert unwrap(nn.parallel.DistributedDataParallel(model)) is model
    finally:
        torch.distributed.destroy_process_group()


def test_a_survey_speaks_of_the_inner_model():
    assert survey(nn.DataParallel(nn.Linear(2, 2))).names == ("weight",)


def test_a_module_that_happens_to_be_called_module_stays():
    model = nn.ModuleDict({"module": nn.Linear(2, 2)})
    assert unwrap(model) is model


def test_what_is_no_module_is_refused():
    with pytest.raises(BadInput, match=r"got a dict where a torch.nn.Module is needed"):
        unwrap({"weight": torch.ones(2)})
