"""The walk through models of many families: what it measures is what the whole, partly pruned model gives its layers."""

import math

import pytest
import torch
from torch import nn

from secateurs.models import find_blocks, matrices, survey
from secateurs.train.walk import walk
from tests.models.families import FAMILIES, batches, family

pytest.importorskip("transformers")


def prune(block):
    """Every second weight, in the order of memory."""
    for weight in block.weights:
        weight.parameter.view(-1)[::2] = 0


def inputs_of(model, names, given):
    """The squared column norms of the named layers' inputs, over forwards of the whole model."""
    sums, handles = {}, []
    for name in names:

        def hook(module, args, name=name):
            x = args[0].reshape(-1, args[0].shape[-1])
            sums[name] = sums.get(name, 0) + x.square().sum(0)

        handles.append(model.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(hook))
    for batch in given:
        model(**batch)
    for handle in handles:
        handle.remove()
    return sums


@pytest.mark.parametrize("name", FAMILIES)
def test_statistics_are_those_of_the_partly_pruned_model(name):
    model, given, visited = family(name), batches(name), []

    def visit(block):
        plain = [w.name for w in block.weights if w.kind == "linear"]
        expected = inputs_of(model, plain, given)  # all blocks before this one are pruned, this one is not
        assert plain and not block.unseen
        for weight in plain:
            (found,) = block.statistics[weight]["norms"]
            torch.testing.assert_close(found.squares, expected[weight], rtol=1e-9, atol=1e-12)
            assert found.sequences == 4
        visited.append(block.name)
        prune(block)

    walked = walk(model, survey(model), given, ["norms"], visit, dtype=torch.float64)
    lists = find_blocks(model, survey(model))
    assert FAMILIES[name][3] in (None, [item.path for item in lists])
    assert visited == [block for item in lists for block in item.names] and len(visited) in (2, 4)
    assert list(walked.facts) == visited
    pruned = {w.name for w in survey(model).weights if math.isclose((w.parameter == 0).double().mean(), 0.5, abs_tol=0.01)}
    assert len(pruned) >= 8
    assert pruned.isdisjoint(left.name for left in walked.left)


def routed(model, layer, given):
    """By expert, the tokens the router chose it for: inputs of its first matrix and, computed by hand, of its second."""
    experts = model.model.layers[layer].mlp.experts
    first, second = [[] for _ in range(4)], [[] for _ in range(4)]

    def hook(module, args):
        hidden, index, _ = args
        for e in range(4):
            x = hidden[(index == e).any(-1)]
            gate, up = (x @ module.gate_up_proj[e].T).chunk(2, -1)
            first[e].append(x)
            second[e].append(nn.functional.silu(gate) * up)

    handle = experts.register_forward_pre_hook(hook)
    for batch in given:
        model(**batch)
    handle.remove()
    return [torch.cat(x) for x in first], [torch.cat(x) for x in second]


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe"])
def test_experts_see_their_routed_tokens_alone(name):
    model, given, layers = family(name), batches(name), []

    def visit(block):
        first, second = routed(model, block.index, given)
        for attribute, expected in (("gate_up_proj", first), ("down_proj", second)):
            found = block.statistics[f"{block.name}.mlp.experts.{attribute}"]["gram"]
            assert [one.tokens for one in found] == [len(x) for x in expected] and sum(map(len, expected)) == 48
            for one, x in zip(found, expected, strict=True):
                torch.testing.assert_close(one.gram, x.T @ x, rtol=1e-9, atol=1e-12)
        layers.append(block.name)
        prune(block)

    walk(model, survey(model), given, ["gram"], visit, dtype=torch.float64)
    assert len(layers) == 2


def test_rarely_routed_experts_are_reported():
    model = family("mixtral")
    routers = [layer.mlp.gate.weight for layer in model.model.layers]
    for router in routers:
        router.data[0] = 0  # never among the two best
        router.data[1:] = router.data[1:].abs() * 0 + 1e-9 * torch.arange(1, 4).double()[:, None]
    found = []
    walk(model, survey(model), batches("mixtral"), ["norms"], lambda block: found.append(block.rare()))
    names = {name for rows in found for name, _, _ in rows}
    assert names == {f"model.layers.{i}.mlp.experts.{a}" for i in range(2) for a in ("gate_up_proj", "down_proj")}
    assert all(tokens == 0 for rows in found for _, _, tokens in rows)


def test_all_experts_of_every_layout_have_matrices_as_wide_as_their_inputs():
    for name in ("gpt-oss", "llama4"):
        model = family(name)

        def visit(block):
            for weight in block.weights:
                inputs = block.statistics[weight.name]["norms"]
                assert matrices(weight).shape[0] == len(inputs)
                assert {one.width for one in inputs} == {matrices(weight).shape[2]}
                if weight.kind == "experts":
                    assert len(inputs) == 4 and sum(one.tokens for one in inputs) > 0

        walk(model, survey(model), batches(name), ["norms"], visit)
