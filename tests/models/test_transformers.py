"""Layers of the transformers library, told apart without importing it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import secateurs.models
from secateurs.core.layout import Layout
from secateurs.models import check, survey

transformers = pytest.importorskip("transformers")

TINY = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
DEEPSEEK = TINY | {
    "n_routed_experts": 4, "moe_intermediate_size": 8, "first_k_dense_replace": 0, "n_group": 1, "topk_group": 1,
    "kv_lora_rank": 8, "num_experts_per_tok": 2, "q_lora_rank": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "qk_nope_head_dim": 8,
}  # fmt: skip
OUT_IN, IN_OUT = Layout(1, 2), Layout(2, 1)
MIXTURES = {  # settings, the layout, the shapes
    "Mixtral": (TINY | {"num_local_experts": 4}, OUT_IN, {(4, 48, 16), (4, 16, 24)}),
    "Qwen3Moe": (
        TINY | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "head_dim": 8},
        OUT_IN,
        {(4, 16, 16), (4, 16, 8)},
    ),
    "GptOss": (TINY | {"num_local_experts": 4, "head_dim": 8}, IN_OUT, {(4, 16, 48), (4, 24, 16)}),
    "Llama4Text": (
        TINY | {"num_local_experts": 4, "intermediate_size_mlp": 24, "head_dim": 8},
        IN_OUT,
        {(4, 16, 48), (4, 24, 16)},
    ),
    "DeepseekV3": (DEEPSEEK, OUT_IN, {(4, 16, 16), (4, 16, 8)}),
    "JetMoe": (TINY | {"num_local_experts": 4, "kv_channels": 8}, OUT_IN, {(4, 48, 16), (4, 16, 24), (4, 16, 16)}),
}


def model_of(config):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config)


@pytest.fixture(params=MIXTURES)
def mixture(request):
    settings, layout, shapes = MIXTURES[request.param]
    return model_of(getattr(transformers, f"{request.param}Config")(**settings)), layout, shapes


def test_stacked_experts_are_found_with_their_layout(mixture):
    model, layout, shapes = mixture
    found = survey(model)
    experts = [w for w in found.weights if w.kind == "experts"]
    assert {w.layout for w in experts} == {layout}
    assert {w.shape for w in experts} == shapes
    assert found.total == sum(p.numel() for p in model.parameters())
    check(found)


def test_the_output_dimension_is_the_one_the_forward_writes(mixture):
    """With output 0 of every expert's last matrix set to zero, the experts' output is zero there and nowhere else."""
    model, *_ = mixture
    outputs = []
    for weight in survey(model).weights:
        (site,) = weight.sites if weight.kind == "experts" else (None,)
        if site and site.attribute in ("down_proj", "weight"):
            with torch.no_grad():
                weight.parameter.select(weight.layout.out_dim, 0).zero_()
            site.module.register_forward_hook(lambda module, args, output: outputs.append(output))
    model(torch.arange(8)[None])
    assert outputs
    for output in outputs:
        assert not output[..., 0].any()
        assert output[..., 1:].any(dim=tuple(range(output.ndim - 1))).all()


def test_a_router_that_is_no_linear_layer_is_left_alone():
    found = survey(model_of(transformers.MixtralConfig(**MIXTURES["Mixtral"][0])))
    (router,) = [item for item in found.left if item.name.endswith("mlp.gate.weight")]
    assert "router" in router.reason


def test_gpt2_conv1d_is_a_linear_layer_with_its_dimensions_turned_and_the_head_is_tied():
    small = {"vocab_size": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(**small)
    weights = {w.name: w for w in survey(model_of(config)).weights}
    attention = weights["transformer.h.0.attn.c_attn.weight"]
    assert (attention.kind, attention.shape, attention.layout) == ("linear", (16, 48), Layout(out_dim=1, in_dim=0))
    assert weights["transformer.wte.weight"].aliases == ("lm_head.weight",)


def test_transformers_is_not_imported_by_a_survey():
    program = "import sys, torch, secateurs.models as m; m.survey(torch.nn.Linear(2, 2)); print('transformers' in sys.modules)"
    env = os.environ | {"PYTHONPATH": str(Path(secateurs.models.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "False"
