"""Multiply-adds by hand, layer kind by layer kind, and nothing left out in silence."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from secateurs.measure import multiply_adds, sizes


def half(weight):
    """Zero every other entry."""
    weight.data.view(-1)[::2] = 0


CASES = {
    "linear": (nn.Linear(6, 4), torch.ones(2, 5, 6), 2 * 5 * 6 * 4),
    "bilinear": (nn.Bilinear(2, 3, 4), (torch.ones(5, 2), torch.ones(5, 3)), 5 * 2 * 3 * 4),
    "conv, stride and padding": (nn.Conv2d(2, 4, 3, stride=2, padding=1), torch.ones(3, 2, 8, 8), 3 * 16 * 4 * 2 * 9),
    "conv, unbatched": (nn.Conv1d(2, 4, 3), torch.ones(2, 10), 8 * 4 * 2 * 3),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, padding=1), torch.ones(1, 4, 5, 5), 25 * 4 * 9),
    "transposed": (nn.ConvTranspose2d(2, 3, 2, stride=2), torch.ones(1, 2, 4, 4), 16 * 2 * 3 * 4),
    "lstm": (nn.LSTM(4, 6), torch.ones(5, 2, 4), 10 * 24 * (4 + 6)),
    "gru, two layers both ways": (nn.GRU(4, 6, 2, bidirectional=True), torch.ones(5, 2, 4), 10 * 2 * 18 * ((4 + 6) + (12 + 6))),
    "cell": (nn.GRUCell(4, 6), torch.ones(3, 4), 3 * 18 * 10),
    "embedding": (nn.Embedding(10, 4), torch.zeros(3, dtype=torch.long), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_dense_and_nonzero_by_hand(name):
    layer, example, expected = CASES[name]
    layer = copy.deepcopy(layer)
    example = example if isinstance(example, tuple) else (example,)
    found = multiply_adds(layer, *example)
    assert (found.dense, found.nonzero, found.outside) == (expected, expected, 0)
    for weight in (p for n, p in layer.named_parameters() if "weight" in n):
        half(weight)
    found = multiply_adds(layer, *example)
    assert (found.dense, found.nonzero) == (expected, expected / 2)
    assert found.theoretical_speedup == (2.0 if expected else float("inf"))


def test_packed_sequences_count_their_own_tokens():
    packed = nn.utils.rnn.pack_padded_sequence(torch.ones(2, 5, 4), torch.tensor([5, 3]), batch_first=True)
    assert multiply_adds(nn.RNN(4, 6, batch_first=True), packed).dense == 8 * 6 * (4 + 6)


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention(batch_first):
    layer = nn.MultiheadAttention(8, 2, kdim=4, vdim=4, batch_first=batch_first)
    query, key = torch.ones(3, 5, 8), torch.ones(3, 7, 4)
    if not batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    projections = 3 * 5 * 64 + 2 * 3 * 7 * 32 + 3 * 5 * 64
    products = 2 * 3 * 5 * 7 * 8
    found = multiply_adds(layer, query, key=key, value=key)
    assert found.dense == projections + products
    half(layer.out_proj.weight)
    assert multiply_adds(layer, query, key, key).nonzero == found.dense - 3 * 5 * 32
    assert found.never_called == ()  # its output projection is used, though never called


def test_encoder_layer_counts_the_same_in_both_modes():
    """The fused path of evaluation mode calls no sub-module: it is off while counting, and back on afterwards."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    found = multiply_adds(layer, torch.ones(2, 5, 8))
    assert found.dense == 10 * (4 * 64 + 2 * 8 * 16) + 2 * 2 * 25 * 8
    assert torch.backends.mha.get_fastpath_enabled()


class Own(nn.Module):
    """A layer of the user's own beside one that a function uses, and one never used."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 6))
        self.used, self.unused, self.norm = nn.Linear(4, 2, bias=False), nn.Linear(9, 9), nn.LayerNorm(2)

    def forward(self, x):
        return self.norm(F.linear(F.linear(x, self.weight), self.used.weight))


def test_what_has_no_rule_is_listed_and_its_products_counted_outside():
    model = nn.Sequential(Own(), nn.Linear(2, 3))
    found = multiply_adds(model, torch.ones(5, 6))
    assert found.outside == 5 * 24 + 5 * 8
    assert found.dense == found.outside + 5 * 6
    assert found.uncounted == {"Own": ("0",), "LayerNorm": ("0.norm",)}
    assert found.never_called == ("0.used", "0.unused")


def test_functional_attention_is_counted():
    class Attend(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x)

    assert multiply_adds(Attend(), torch.ones(1, 2, 5, 4)).outside == 2 * 2 * 25 * 4


def test_expert_layers_are_counted_outside():
    transformers = pytest.importorskip("transformers")
    config = transformers.MixtralConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, vocab_size=32,
        num_local_experts=4, num_experts_per_tok=2, bos_token_id=0, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    found = multiply_adds(transformers.MixtralForCausalLM(config), torch.zeros(1, 6, dtype=torch.long))
    attention, router, experts = 2 * 36 * 16, 6 * 16 * 4, 6 * 2 * 3 * 16 * 32
    projections, head = 4 * 6 * 16 * 16, 6 * 16 * 32
    rotary = 4 * 6  # some releases multiply positions and frequencies as a matrix product
    assert found.dense - (attention + router + experts + projections + head) in (0, rotary)
    assert found.unknown_operators == ()
    assert "MixtralExperts" in found.uncounted


def test_products_without_a_formula_are_named():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.mv(x, x[0]) + torch.ops.secateurs_test.triple(x)[0]

    with torch.library._scoped_library("secateurs_test", "DEF") as library:
        library.define("triple(Tensor x) -> Tensor")
        library.impl("triple", lambda x: x * 3, "CompositeExplicitAutograd")
        found = multiply_adds(nn.Sequential(nn.Linear(4, 4), Odd()), torch.ones(4, 4))
    assert found.unknown_operators == ("aten.mv", "secateurs_test.triple")


def test_a_layer_called_twice_counts_twice():
    layer = nn.Linear(3, 3)
    found = multiply_adds(nn.Sequential(layer, nn.ReLU(), layer), torch.ones(2, 3))
    assert [(row.name, row.type, row.dense) for row in found.layers] == [("0", "Linear", 36)]


def test_gpt2_layers_are_counted():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_embd=8, n_head=2, vocab_size=11, n_positions=16, bos_token_id=0, eos_token_id=1
    )
    found = multiply_adds(transformers.GPT2LMHeadModel(config), torch.zeros(1, 6, dtype=torch.long))
    assert found.dense - found.outside == 6 * (8 * 24 + 8 * 8 + 2 * 8 * 32 + 8 * 11)
    assert found.outside == 2 * 36 * 8
    assert found.uncounted.keys() == {"LayerNorm"}


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    model[2].eval()
    before = copy.deepcopy(model.state_dict())
    multiply_adds(model, torch.randn(2, 1, 5, 5))
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_model_is_left_as_it_was_by_a_failing_forward():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        multiply_adds(model, torch.ones(1, 3))
    assert model.training and not model[0]._forward_hooks and torch.backends.mha.get_fastpath_enabled()


NETS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4)), (3, 12)),
    "conv net": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                              nn.Conv2d(8, 8, 3, 2, groups=2), nn.Flatten(), nn.Linear(72, 5)),
        (2, 3, 8, 8),
    ),
    "lstm": (lambda: nn.LSTM(6, 5, 2, bidirectional=True), (7, 2, 6)),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:TF32")
@pytest.mark.parametrize("name", NETS)
def test_dense_is_half_of_torchs_floating_point_operations(name):
    build, shape = NETS[name]
    model, example = build(), torch.randn(shape)
    model.train()  # in evaluation mode a fused encoder layer hides its products from torch's counter
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:  # whose LSTM is one operator
        model(example)
    found = multiply_adds(model, example)
    assert found.dense == found.nonzero == counter.get_total_flops() / 2 > 0


def test_theoretical_speedup_is_the_compression_ratio_of_an_mlp():
    """ShrinkBench: an MLP uses each weight once for an example, so both ratios are one (without biases)."""
    mlp, example = nn.Sequential(nn.Linear(12, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False)), torch.ones(2, 12)
    assert multiply_adds(mlp, example).theoretical_speedup == sizes(mlp).compression_ratio == 1
    mlp[2].weight.data[:3] = 0
    assert multiply_adds(mlp, example).theoretical_speedup == sizes(mlp).compression_ratio == (96 + 32) / (96 + 8)


def test_theoretical_speedup_is_not_the_compression_ratio_of_a_conv_net():
    """A convolution uses each weight once per position, so the share of its zeros weighs more than their number."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.Flatten(), nn.Linear(144, 4, bias=False))
    example = torch.ones(2, 1, 8, 8)
    assert multiply_adds(net, example).theoretical_speedup == sizes(net).compression_ratio == 1
    net[2].weight.data[:3] = 0
    assert sizes(net).compression_ratio == (36 + 576) / (36 + 144)
    assert multiply_adds(net, example).theoretical_speedup == (36 * 36 + 576) / (36 * 36 + 144)
