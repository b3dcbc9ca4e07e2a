"""Sums of gradients, a block at a time, against a backward pass through the whole model."""

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput, CorruptFile
from secateurs.models import survey
from secateurs.statistics import gradient_sums, single_samples
from secateurs.train.blockwise import within_blocks
from secateurs.train.losses import default_loss
from secateurs.train.walk import Shards, Streamed, open_hollow
from secateurs.train.walk.backward import gradient_sums_by_block
from secateurs.train.walk.experts import eager_experts
from tests.models.families import batches, family


def labelled(name, dtype):
    given = batches(name, dtype=dtype)
    if name == "t5":
        return [{"input_ids": batch["input_ids"], "labels": batch["decoder_input_ids"]} for batch in given]
    if name == "bert":
        return [batch | {"labels": batch["input_ids"]} for batch in given]
    return given


@pytest.mark.parametrize("want", ["absolute", "squared"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "t5", "bert", "mixtral", "qwen3-moe", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_gradients_of_the_whole_model(name, want, dtype, tmp_path):
    pytest.importorskip("transformers")
    model, samples = family(name, dtype), list(single_samples(labelled(name, dtype)))
    model.save_pretrained(tmp_path / "model", max_shard_size="10KB")
    streamed = open_hollow(tmp_path / "model")
    chosen, whole = (within_blocks(one, survey(one)) for one in (streamed, model))
    most = []
    sums = gradient_sums_by_block(
        streamed, chosen, samples, default_loss, want, tmp_path / "sums", budget=0, scratch=tmp_path,
        source=Streamed(streamed, Shards(tmp_path / "model")),
        progress=lambda *at: most.append({n for n, p in streamed.named_parameters() if not p.is_meta}),
    )  # fmt: skip
    with eager_experts(model):  # others know no float64
        expected = gradient_sums(model, {w.name: w.parameter for w in whole.weights}, samples, default_loss, wants=[want])
    assert {w.name for w in chosen.weights} == set(expected)
    for weight in whole.weights:
        found, true = sums.load(weight).double(), getattr(expected[weight.name], want).double()
        assert float(true.abs().max()) > 0
        assert float((found - true).norm() / true.norm()) < 1e-5, weight.name
    assert len(most) == 4 if name == "t5" else 2
    assert not any(weight.name in names for weight in chosen.weights for names in most)  # of finished blocks nothing stays
    assert all(p.requires_grad and p.grad is None for p in streamed.parameters())


class Skipping(nn.Module):
    """Blocks in a list; the last reads what the first gave as well."""

    def __init__(self, skip):
        super().__init__()
        self.skip = skip
        self.blocks = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        """Class scores."""
        given = []
        for block in self.blocks:
            x = torch.tanh(block(x + given[0] if self.skip and len(given) == 3 else x))
            given.append(x)
        return self.head(x)


def plain(skip):
    torch.manual_seed(0)
    return Skipping(skip).double()


DRAWN = torch.randn(5, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PAIRS = [(inputs, torch.tensor([i % 2])) for i, inputs in enumerate(DRAWN)]


def summed(model, folder, samples=PAIRS, loss=default_loss, want="absolute", **words):
    return gradient_sums_by_block(model, within_blocks(model, survey(model)), samples, loss, want, folder, **words)


@pytest.mark.parametrize(("skip", "keep"), [(False, None), (False, "all"), (True, "all")])
def test_a_model_in_memory(skip, keep, tmp_path):
    model = plain(skip)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sums = summed(model, tmp_path, keep=keep, want="total")
    weights = {weight.name: weight for weight in within_blocks(model, survey(model)).weights}
    total = sum(default_loss(model, sample) for sample in PAIRS)
    gradients = torch.autograd.grad(total, [weight.parameter for weight in weights.values()])
    for weight, gradient in zip(weights.values(), gradients, strict=True):
        torch.testing.assert_close(sums.load(weight), gradient.float())
    assert list(weights) == [f"blocks.{i}.weight" for i in range(4)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_an_output_from_further_back_is_refused(tmp_path):
    with pytest.raises(BadInput, match="walk with keep='all'"):
        summed(plain(skip=True), tmp_path)


def test_two_weights_by_hand(tmp_path):
    """y = b a x, loss y: the gradient by a is b x, by b it is a x. Samples 1 and -3: |g| sums to 4 |b|, g^2 to 10 b^2."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    model[0].weight.data.fill_(2.0)
    model[1].weight.data.fill_(5.0)
    first, second = survey(model).weights
    samples = [torch.tensor([[1.0]]), torch.tensor([[-3.0]])]
    for want, by_a, by_b in (("absolute", 20, 8), ("squared", 250, 40), ("total", -10, -4)):
        sums = summed(model, tmp_path / want, samples, lambda net, x: net(x).sum(), want)
        assert (sums.load(first).item(), sums.load(second).item()) == (by_a, by_b)


def test_order_and_signs_of_samples_do_not_matter(tmp_path):
    model = plain(skip=False)
    one, other = (summed(model, tmp_path / name, given, loss) for name, given, loss in (
        ("there", PAIRS, default_loss), ("back", PAIRS[::-1], lambda model, pair: -default_loss(model, pair)),
    ))  # fmt: skip
    for weight in within_blocks(model, survey(model)).weights:
        torch.testing.assert_close(one.load(weight), other.load(weight))


def test_a_killed_run_keeps_the_sums_it_has(tmp_path):
    model, seen = plain(skip=False), []

    def killed(done, total, name):
        if done == 2:
            raise KeyboardInterrupt

    def loss(model, pair):
        seen.append(pair)
        return default_loss(model, pair)

    with pytest.raises(KeyboardInterrupt):
        summed(model, tmp_path / "sums", progress=killed)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "sums").glob("*.safetensors")}
    assert len(kept) == 2
    again, whole = (summed(model, tmp_path / name, loss=loss) for name in ("sums", "whole"))
    assert {name: (tmp_path / "sums" / name).stat().st_mtime_ns for name in kept} == kept
    for weight in within_blocks(model, survey(model)).weights:
        assert torch.equal(again.load(weight), whole.load(weight))
    seen.clear()
    summed(model, tmp_path / "sums", loss=loss)
    assert not seen  # nothing is left to do


def test_what_cannot_be_summed(tmp_path):
    model = plain(skip=False)
    with pytest.raises(BadInput, match="calibration gave no batch"):
        summed(model, tmp_path / "none", [])
    with pytest.raises(BadInput, match="does not depend on what the model's blocks give"):
        summed(model, tmp_path / "constant", loss=lambda model, pair: model(pair[0]).sum().detach())
    twice = nn.Sequential(*[nn.Linear(4, 4) for _ in range(2)]).double()
    with pytest.raises(BadInput, match="'0' is called more than once"):
        summed(twice, tmp_path / "twice", loss=lambda model, pair: model(model(pair[0])).sum())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(BadInput, match=r"holds files, but no gradients\.json"):
        summed(model, tmp_path / "full")


def test_a_folder_of_sums_that_does_not_fit(tmp_path):
    model = plain(skip=False)
    sums = summed(model, tmp_path)
    with pytest.raises(BadInput, match="another run, which differs in calibration"):
        summed(model, tmp_path, PAIRS[:3])
    with pytest.raises(BadInput, match="another run, which differs in want"):
        summed(model, tmp_path, want="squared")
    first, second, *_ = within_blocks(model, survey(model)).weights
    first.parameter.data[0, 0] += 1
    with pytest.raises(BadInput, match=r"of another model: 'blocks\.0\.weight' has other values"):
        sums.load(first)
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CorruptFile, match="truncated or altered"):
        sums.load(second)
    (tmp_path / "gradients.json").write_text("[]")
    with pytest.raises(CorruptFile, match="cannot be read"):
        summed(model, tmp_path)
