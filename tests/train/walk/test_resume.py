"""A walk that was killed goes on behind its last finished block and ends with the same bits."""

import copy
import json

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput, CorruptFile
from secateurs.models import survey
from secateurs.train.walk import walk
from secateurs.train.walk.state import digest

BATCHES = [{"x": torch.randn(3, 4, generator=torch.Generator().manual_seed(i))} for i in range(3)]


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(4))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Fed(Net):
    """A layer that is no block before them, and a buffer."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.register_buffer("shift", torch.zeros(4), persistent=False)

    def forward(self, x):
        return super().forward(self.stem(x) + self.shift)


class Killed(BaseException):
    pass


def network():
    torch.manual_seed(0)
    return Net()


def run(model, state=None, stop=None, log=None, **options):
    """Prunes by the statistics and moves what is left, biases too; killed at the block of number ``stop``."""

    def visit(block):
        if block.index == stop:
            raise Killed
        if log is not None:
            log.append(block.name)
        for weight in block.weights:
            (norms,) = block.statistics[weight.name]["norms"]
            scores = weight.parameter.abs() * norms.norms
            weight.parameter[scores <= scores.median(1, keepdim=True).values] = 0
            weight.parameter.mul_(1 + norms.mean().mean())
            weight.sites[0].module.bias.add_(norms.norms.mean())
        return {"tokens": block.statistics[block.weights[0].name].tokens[0]}

    options = {"settings": {"sparsity": 0.5}} | options
    return walk(model, survey(model), options.pop("batches", BATCHES), ["norms"], visit, state=state, **options)


@pytest.mark.parametrize("propagate", ["pruned", "dense"])
@pytest.mark.parametrize("stops", [[0], [1], [3], [1, 2, 2, 3]], ids=str)
def test_a_killed_walk_ends_with_the_same_bits(stops, propagate, tmp_path):
    whole, log = network(), []
    expected = run(whole, propagate=propagate)
    for stop in stops:
        with pytest.raises(Killed):
            run(network(), tmp_path, stop, log, propagate=propagate)
    resumed = network()
    walked = run(resumed, tmp_path, log=log, propagate=propagate)
    assert log == [f"layers.{i}" for i in range(4)]  # every block was pruned once
    assert walked.facts == expected.facts and walked.facts["layers.2"] == {"tokens": 9}
    assert all(map(torch.equal, resumed.state_dict().values(), whole.state_dict().values()))
    again = network()
    run(again, tmp_path, 0, propagate=propagate)  # all is done: nothing is visited
    assert all(map(torch.equal, again.state_dict().values(), whole.state_dict().values()))


def test_a_block_half_written_is_done_again(tmp_path):
    with pytest.raises(Killed):
        run(network(), tmp_path, 2)
    (tmp_path / "block-00002.safetensors").write_bytes(b"half")  # killed between the tensors and the list
    resumed, whole = network(), network()
    run(resumed, tmp_path)
    run(whole)
    assert all(map(torch.equal, resumed.state_dict().values(), whole.state_dict().values()))


CHANGES = {
    "settings": {"settings": {"sparsity": 0.6}},
    "calibration": {"batches": BATCHES[:2]},
    "propagate": {"propagate": "dense"},
    "dtype": {"dtype": torch.float64},
    "seed": {"seed": 1},
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_run_does_not_take_it_over(what, tmp_path):
    run(network(), tmp_path)
    with pytest.raises(BadInput, match=rf"of another run, which differs in {what}( \(sparsity\))?:"):
        run(network(), tmp_path, **CHANGES[what])


def test_another_model_does_not_take_it_over(tmp_path):
    with pytest.raises(Killed):
        run(network(), tmp_path, 2)
    other = network()
    other.layers[1].up.bias.data[0] += 1
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(BadInput, match=r"'layers\.1' has other values than when it was pruned"):
        run(other, tmp_path)
    assert torch.equal(other.layers[1].up.weight, before["layers.1.up.weight"])


def test_another_model_around_the_blocks_does_not_take_it_over(tmp_path):
    """What lies outside the blocks feeds them: an embedding, a norm before the first, a buffer."""
    for what in ("stem", "shift"):
        model = Fed()
        with pytest.raises(Killed):
            run(model, tmp_path / what, 2)
        other = Fed()
        other.get_parameter("stem.weight").data.view(-1)[0] += what == "stem"
        other.shift += what == "shift"
        with pytest.raises(BadInput, match="which differs in outside"):
            run(other, tmp_path / what)
        run(Fed(), tmp_path / what)


def test_other_words_in_the_batches_do_not_take_it_over(tmp_path):
    class Named(Net):
        def forward(self, x, scale=1.0, **ignored):
            return super().forward(x * scale)

    def given(scale, name="scale"):
        return [{**batch, name: scale} for batch in BATCHES]

    torch.manual_seed(0)
    model = Named()
    with pytest.raises(Killed):
        run(copy.deepcopy(model), tmp_path, 2, batches=given(2.0))
    for other in (given(3.0), given(2.0, "factor")):
        with pytest.raises(BadInput, match="which differs in calibration"):
            run(copy.deepcopy(model), tmp_path, batches=other)
    run(copy.deepcopy(model), tmp_path, batches=given(2.0))


def test_files_that_are_not_whole_are_refused(tmp_path):
    with pytest.raises(Killed):
        run(network(), tmp_path, 2)
    file = tmp_path / "block-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CorruptFile, match=r"block-00001\.safetensors' is missing, truncated or altered"):
        run(network(), tmp_path)
    (tmp_path / "walk.json").write_text("{")
    with pytest.raises(CorruptFile, match=r"walk\.json' cannot be read"):
        run(network(), tmp_path)
    (tmp_path / "walk.json").write_text(json.dumps({"version": 2, "identity": {}, "finished": []}))
    with pytest.raises(CorruptFile, match="has version 2; this library reads 1"):
        run(network(), tmp_path)


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(BadInput, match=r"holds files, but no walk\.json"):
        run(network(), tmp_path)


def test_digests_tell_bits_shapes_and_dtypes_apart():
    z = torch.zeros
    zeros = [z(2, 3), z(3, 2), z(6).bfloat16(), -z(2, 3), z(()), z(0)]
    assert len({digest([t]) for t in zeros}) == len(zeros)
    assert digest([torch.ones(2, 2).T]) == digest([torch.ones(2, 2)])
