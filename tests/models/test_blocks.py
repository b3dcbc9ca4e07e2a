"""The lists of repeated layers, found in the module tree."""

import pytest
from torch import nn

from secateurs.errors import BadInput
from secateurs.models import describe_tree, find_blocks, survey


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])  # a list inside a block is not the list of blocks


class OtherLayer(Layer):
    pass


class Net(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.embed = nn.Embedding(1000, 4)
        self.body = nn.Module()
        self.body.layers = nn.ModuleList(layers)
        self.head = nn.Linear(4, 2)


def found(model, blocks=()):
    return [(item.path, item.names) for item in find_blocks(model, survey(model), blocks)]


def test_the_outermost_list_counts_and_embeddings_do_not():
    assert found(Net(Layer(), Layer())) == [("body.layers", ("body.layers.0", "body.layers.1"))]


def test_layers_of_two_classes_are_a_list_where_their_names_say_so():
    assert found(Net(Layer(), OtherLayer())) == [("body.layers", ("body.layers.0", "body.layers.1"))]


def test_small_lists_are_no_blocks():
    model = Net(*(Layer() for _ in range(60)))
    model.heads = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])  # 16 of 1944 weights
    assert [path for path, _ in found(model)] == ["body.layers"]


def test_without_a_list_every_layer_is_a_block():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    assert found(model) == [("", ("0", "2.0"))]
    assert found(nn.Sequential(nn.ReLU())) == []


def test_blocks_can_be_named():
    model = Net(Layer(), Layer())
    assert found(model, "body.layers.1.parts") == [
        ("body.layers.1.parts", ("body.layers.1.parts.0", "body.layers.1.parts.1"))]  # fmt: skip
    assert found(model, ["body.layers", "head"]) == [("body.layers", ("body.layers.0", "body.layers.1")), ("", ("head",))]


@pytest.mark.parametrize(("name", "says"), [("body.layer", "is no module of this model; did you mean 'body.layers'"),
                                            ("embed", "holds nothing to prune")])  # fmt: skip
def test_an_error_shows_the_tree_and_how_to_name_the_blocks(name, says):
    with pytest.raises(BadInput, match=says) as error:
        found(Net(Layer(), Layer()), name)
    assert "blocks='model.layers'" in str(error.value)
    assert "  layers: 2 x Layer\n    parts: 2 x Linear\nhead: Linear" in "\n".join(error.value.__notes__)


def test_a_block_is_not_named_twice():
    with pytest.raises(BadInput, match=r"'body\.layers\.0\.parts\.0' lies inside 'body\.layers\.0'"):
        found(Net(Layer(), Layer()), ["body.layers", "body.layers.0.parts"])


def test_the_tree_is_cut_at_a_depth():
    assert describe_tree(Net(Layer(), Layer()), 1) == "embed: Embedding\nbody: Module\nhead: Linear"
