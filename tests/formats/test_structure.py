"""A shrunk model comes back from its folder: shapes and sizes rebuilt from what its factory builds, values bit for bit."""

import copy
import json

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput, CorruptFile
from secateurs.formats import load, manifest, note_changes, read_info, record_of, save
from secateurs.formats.structure import built_on_meta


class Net(nn.Module):
    """A layer, a size the code uses, a scale that no state dict holds, and a tied pair."""

    def __init__(self, width=6):
        super().__init__()
        self.width, self.first, self.last = width, nn.Linear(3, width), nn.Linear(width, 3)
        self.norm = nn.RMSNorm(width, eps=1e-3)
        self.again = nn.Linear(3, width, bias=False)
        self.again.weight = self.first.weight
        self.register_buffer("scale", torch.arange(float(width)), persistent=False)

    def forward(self, x):
        return self.last(self.norm((self.first(x) + self.again(x)).view(-1, self.width)) * self.scale)


class Random(Net):
    """Its shapes follow from a value, so that it cannot be built on the meta device."""

    def __init__(self):
        super().__init__(int(torch.tensor(6)))


def shrunk(kind=Net, kept=(0, 2, 5)):
    dense = kind()
    small, index = copy.deepcopy(dense), torch.tensor(kept)
    weight = nn.Parameter(dense.first.weight[index].detach())
    small.first.weight = small.again.weight = weight
    small.first.bias = nn.Parameter(dense.first.bias[index].detach())
    small.last.weight = nn.Parameter(dense.last.weight[:, index].detach())
    small.norm.weight = nn.Parameter(dense.norm.weight[index].detach() * 2**0.5)
    small.scale = dense.scale[index]
    small.width, small.norm.eps, small.norm.normalized_shape = 3, 2e-3, (3,)
    small.first.out_features = small.again.out_features = small.last.in_features = 3
    note_changes(dense, small)
    return small.eval()


@pytest.mark.parametrize("kind", [Net, Random])
def test_round_trip(tmp_path, kind):
    model, x = shrunk(kind), torch.randn(4, 3)
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m", kind)
    assert torch.equal(loaded(x), model(x)) and not loaded.training
    assert loaded.again.weight is loaded.first.weight and torch.equal(loaded.scale, model.scale)
    assert (loaded.width, loaded.norm.eps, loaded.norm.normalized_shape, loaded.first.out_features) == (3, 2e-3, (3,), 3)
    assert isinstance(loaded.norm.normalized_shape, tuple)
    save(loaded, tmp_path / "again")
    assert read_info(tmp_path / "again")["structure"] == read_info(tmp_path / "m")["structure"]
    assert torch.equal(load(tmp_path / "again", kind)(x), model(x))


def test_the_dense_network_takes_no_memory(tmp_path):
    devices = []

    def factory():
        model = Net()
        devices.append(model.first.weight.device.type)
        return model

    save(shrunk(), tmp_path / "m")
    load(tmp_path / "m", factory)
    assert devices == ["meta"]
    assert built_on_meta(Random) is None and built_on_meta(Net).first.weight.is_meta


def test_the_record(tmp_path):
    save(shrunk(), tmp_path / "m")
    structure = read_info(tmp_path / "m")["structure"]
    assert structure == {
        "attributes": {
            "": {"width": 3}, "first": {"out_features": 3}, "last": {"in_features": 3},
            "norm": {"normalized_shape": [3], "eps": 2e-3}, "again": {"out_features": 3},
        },
        "dense_shapes": {
            "first.weight": [6, 3], "first.bias": [6], "last.weight": [3, 6], "norm.weight": [6], "again.weight": [6, 3],
            "scale": [6],
        },
    }  # fmt: skip
    save(Net(), tmp_path / "dense")
    assert "structure" not in read_info(tmp_path / "dense") and record_of(Net()) is None


def test_a_second_cut_is_recorded_against_the_first_model(tmp_path):
    once = shrunk()
    twice = copy.deepcopy(once)
    twice.first.weight = twice.again.weight = nn.Parameter(once.first.weight[:2].detach())
    twice.width = 2
    note_changes(once, twice)
    assert record_of(twice)["dense_shapes"]["first.weight"] == [6, 3]
    assert record_of(twice)["attributes"][""] == {"width": 2} and record_of(twice)["attributes"]["norm"]["eps"] == 2e-3
    assert record_of(once)["attributes"][""] == {"width": 3}


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (lambda: Net(7), "in the model that was shrunk it was torch.float32 .6, 3."),
        (lambda: Net().double(), "torch.float64"),
        (lambda: nn.Linear(3, 6), "only one of network and folder"),
        (lambda: 3, "must return a torch.nn.Module"),
    ],
)
def test_another_network_is_refused(tmp_path, factory, reason):
    save(shrunk(), tmp_path / "m")
    with pytest.raises(BadInput, match=reason):
        load(tmp_path / "m", factory)


def test_no_factory(tmp_path):
    save(shrunk(), tmp_path / "m")
    with pytest.raises(BadInput, match="pass factory="):
        load(tmp_path / "m")


def edit(folder, change):
    info = json.loads((folder / "secateurs.json").read_text())
    change(info["structure"])
    info["sha256"] = manifest._own_digest(info)
    (folder / "secateurs.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda s: s["attributes"].update({"first": {"out_features": "os.system"}}), CorruptFile),
        (lambda s: s["attributes"].update({"first": {"__class__": 3}}), BadInput),
        (lambda s: s["attributes"].update({"first": {"forward": 3}}), BadInput),
        (lambda s: s["attributes"].update({"nowhere": {"width": 3}}), BadInput),
        (lambda s: s["dense_shapes"].update({"first.weight": [-1, 3]}), CorruptFile),
        (lambda s: s.pop("dense_shapes"), CorruptFile),
    ],
)
def test_a_record_that_says_more_than_sizes_is_refused(tmp_path, change, error):
    save(shrunk(), tmp_path / "m")
    edit(tmp_path / "m", change)
    with pytest.raises(error):
        load(tmp_path / "m", Net)
