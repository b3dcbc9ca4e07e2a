"""What is prunable, layer by layer."""

import pytest
import torch
from torch import nn

from secateurs.core.layout import Layout
from secateurs.errors import BadInput
from secateurs.models import declare, roles, survey

OUT_IN, IN_OUT = Layout(), Layout(out_dim=1, in_dim=0)
LAYERS = {
    "linear": (nn.Linear(4, 3), "linear", OUT_IN),
    "linear subclass": (nn.modules.linear.NonDynamicallyQuantizableLinear(4, 3), "linear", OUT_IN),
    "bilinear": (nn.Bilinear(2, 3, 4), "linear", OUT_IN),
    "conv1d": (nn.Conv1d(4, 6, 3), "conv", OUT_IN),
    "conv2d": (nn.Conv2d(4, 6, 3), "conv", OUT_IN),
    "conv3d": (nn.Conv3d(4, 6, 1), "conv", OUT_IN),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), "conv", OUT_IN),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), "depthwise-conv", OUT_IN),
    "depthwise, two filters a channel": (nn.Conv1d(4, 8, 3, groups=4), "depthwise-conv", OUT_IN),
    "one channel is no depthwise": (nn.Conv2d(1, 8, 3, groups=1), "conv", OUT_IN),
    "transposed1d": (nn.ConvTranspose1d(4, 6, 3), "transposed-conv", IN_OUT),
    "transposed2d": (nn.ConvTranspose2d(4, 6, 3, groups=2), "transposed-conv", IN_OUT),
    "transposed3d": (nn.ConvTranspose3d(4, 6, 1), "transposed-conv", IN_OUT),
    "embedding": (nn.Embedding(7, 3, padding_idx=0), "embedding", OUT_IN),
    "embedding bag": (nn.EmbeddingBag(7, 3), "embedding", OUT_IN),
}


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_has_one_weight_of_its_kind_and_its_bias_stays(case):
    layer, kind, layout = LAYERS[case]
    found = survey(layer)
    (weight,) = found.weights
    assert (weight.name, weight.kind, weight.layout, weight.group) == ("weight", kind, layout, "weight")
    assert weight.parameter is layer.weight
    assert weight.size == layer.weight.numel()  # the padding row counts like any other
    assert {left.reason for left in found.left} <= {"a bias"}


NORMS = [
    nn.BatchNorm1d(4), nn.SyncBatchNorm(4), nn.LayerNorm((2, 4)), nn.GroupNorm(2, 4), nn.RMSNorm(4),
    nn.InstanceNorm1d(4, affine=True),
]  # fmt: skip


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: type(norm).__name__)
def test_norms_are_never_prunable_whatever_the_shape_of_their_weight(norm):
    found = survey(norm)
    assert found.weights == ()
    assert {left.name: left.reason for left in found.left}["weight"] == "part of a normalisation"


def test_having_a_weight_is_not_enough():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.gain = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3))

    matrix, vector = survey(Scale()).left
    assert matrix.reason == (
        "Scale is not a kind of layer known here: secateurs.models.declare(Scale, 'weight', ...) says what it is"
    )
    assert vector.reason == "a vector of Scale, not a matrix"


def test_lstm_groups_one_layer_and_direction_and_ranks_the_projection_alone():
    found = survey(nn.ModuleDict({"lstm": nn.LSTM(2, 3, num_layers=2, bidirectional=True, proj_size=2)}))
    groups = {group: [w.name.removeprefix("lstm.") for w in members] for group, members in found.groups().items()}
    assert groups == {
        "lstm.l0": ["weight_ih_l0", "weight_hh_l0"],
        "lstm.weight_hr_l0": ["weight_hr_l0"],
        "lstm.l0_reverse": ["weight_ih_l0_reverse", "weight_hh_l0_reverse"],
        "lstm.weight_hr_l0_reverse": ["weight_hr_l0_reverse"],
        "lstm.l1": ["weight_ih_l1", "weight_hh_l1"],
        "lstm.weight_hr_l1": ["weight_hr_l1"],
        "lstm.l1_reverse": ["weight_ih_l1_reverse", "weight_hh_l1_reverse"],
        "lstm.weight_hr_l1_reverse": ["weight_hr_l1_reverse"],
    }
    assert {(w.kind, w.layout) for w in found.weights} == {("recurrent", OUT_IN)}


@pytest.mark.parametrize("layer, gates", [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_a_recurrent_group_is_the_whole_gate_matrix(layer, gates):
    (group,) = survey(layer(5, 6)).groups().values()
    assert [w.group for w in group] == ["l0", "l0"]
    assert sum(w.size for w in group) == gates * 6 * (5 + 6)


@pytest.mark.parametrize("cell", [nn.LSTMCell(2, 3), nn.GRUCell(2, 3), nn.RNNCell(2, 3)])
def test_a_cell_is_one_layer(cell):
    found = survey(nn.ModuleDict({"cell": cell}))
    assert [(w.name, w.group) for w in found.weights] == [("cell.weight_ih", "cell.l0"), ("cell.weight_hh", "cell.l0")]


def test_attention_has_its_projections_and_the_out_projection_whose_forward_never_runs():
    attention = nn.MultiheadAttention(4, 2)
    joint, out = survey(attention).weights
    assert (joint.name, joint.kind, joint.shape) == ("in_proj_weight", "attention", (12, 4))
    assert (out.name, out.kind, out.group) == ("out_proj.weight", "attention", "out_proj.weight")
    ((module, path, attribute),) = [(s.module, s.path, s.attribute) for s in out.sites]
    assert module is attention.out_proj and (path, attribute) == ("out_proj", "weight")


def test_attention_with_other_key_and_value_widths_has_three_projections():
    found = survey(nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True))
    assert found.names == ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")
    assert {left.reason for left in found.left if left.name.startswith("bias_")} == {"a bias"}


class TestDeclare:
    def test_a_declared_layer_and_its_subclasses_are_prunable(self):
        class Mixer(nn.Module):
            def __init__(self):
                super().__init__()
                self.mix, self.other = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))

        class Finer(Mixer):
            pass

        declare(Mixer, "mix", layout=IN_OUT)
        (weight,) = survey(Finer()).weights
        assert (weight.name, weight.kind, weight.layout) == ("mix", "linear", IN_OUT)

        declare(Finer, "mix", kind="embedding")
        assert survey(Finer()).weights[0].kind == "embedding"
        assert survey(Mixer()).weights[0].kind == "linear"

    def test_a_declaration_goes_before_the_built_in_rule(self):
        class Turned(nn.Linear):
            pass

        declare(Turned, "weight", layout=IN_OUT)
        assert survey(Turned(2, 3)).weights[0].layout == IN_OUT
        assert survey(nn.Linear(2, 3)).weights[0].layout == OUT_IN

    def test_a_declared_name_the_layer_does_not_hold_is_no_role(self):
        class Optional(nn.Module):
            mix = None

        declare(Optional, "mix")
        assert roles(Optional()) == {}

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ((nn.Linear(1, 1), "weight"), "give the layer's class, a subclass of torch.nn.Module"),
            ((dict, "weight"), "give the layer's class"),
            ((nn.Module, "a.b"), r"declare\(Module, 'a.b'\): give the name of one of its parameters"),
        ],
    )
    def test_what_is_no_layer_or_attribute_is_refused(self, arguments, message):
        with pytest.raises(BadInput, match=message):
            declare(*arguments)

    def test_an_unknown_kind_is_refused_with_near_matches(self):
        with pytest.raises(BadInput, match=r"kind='liner'.*did you mean 'linear'"):
            declare(nn.Module, "weight", kind="liner")

    @pytest.mark.parametrize("layout", [Layout(0, 0), Layout(-1, 0)])
    def test_a_layout_of_one_dimension_is_refused(self, layout):
        with pytest.raises(BadInput, match="two different dimensions, counted from 0"):
            declare(nn.Module, "weight", layout=layout)


class _Experts(nn.Module):
    """Four experts, hidden size 6, inner size 5, as a library might store them."""

    def __init__(self, up, down, **says):
        super().__init__()
        self.gate_up_proj, self.down_proj = nn.Parameter(torch.ones(4, *up)), nn.Parameter(torch.ones(4, *down))
        self.gate_up_proj_bias = nn.Parameter(torch.ones(4, 1, 10))
        for name, value in says.items():
            setattr(self, name, value)


class TestExperts:
    @pytest.mark.parametrize("says", [{}, {"is_transposed": False}])
    def test_out_in(self, says):
        found = survey(_Experts((10, 6), (6, 5), **says))
        assert [(w.name, w.kind, w.layout) for w in found.weights] == [
            ("gate_up_proj", "experts", Layout(1, 2)),
            ("down_proj", "experts", Layout(1, 2)),
        ]
        assert [left.reason for left in found.left] == ["a bias"]

    @pytest.mark.parametrize("says", [{}, {"is_transposed": True}])
    def test_in_out(self, says):
        assert {w.layout for w in survey(_Experts((6, 10), (5, 6), **says)).weights} == {Layout(2, 1)}

    def test_square_shapes_still_tell(self):
        assert {w.layout for w in survey(_Experts((6, 6), (6, 3))).weights} == {Layout(1, 2)}
        assert {w.layout for w in survey(_Experts((6, 6), (3, 6))).weights} == {Layout(2, 1)}

    @pytest.mark.parametrize("up, down, says", [((7, 6), (6, 5), {}), ((10, 6), (6, 5), {"is_transposed": True})])
    def test_an_unknown_or_contradicted_layout_is_left_alone(self, up, down, says):
        found = survey(_Experts(up, down, **says))
        assert found.weights == ()
        told = (
            "stacked experts; _Experts does not tell output from input: secateurs.models.declare(_Experts, 'gate_up_proj', ...)"
        )
        assert found.left[0].reason.startswith(told)
