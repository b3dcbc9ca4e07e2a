"""Inside the real libraries: same masks as in a plain loop, resume to the same bits, nothing pickled of ours."""

from __future__ import annotations

import json
import runpy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import secateurs as sc
from secateurs.errors import BadInput, CorruptFile
from secateurs.formats import read_tensors
from secateurs.train.integrations.state_file import load_pruner, save_pruner

RAMP: dict[str, Any] = {"sparsity": 0.75, "begin": 2, "end": 8, "every": 2}


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def data(count: int = 48) -> tuple[Tensor, Tensor]:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(5))
    return x, (x.sum(1) > 0).long()


def zeros(model: nn.Module) -> dict[str, int]:
    return {name: int((p == 0).sum()) for name, p in model.named_parameters() if p.ndim == 2}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, first: int = 0) -> None:
    x, y = data()
    for step in range(first, first + count):
        at = step * 4 % 48
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[at : at + 4]), y[at : at + 4]).backward()
        optimizer.step()


def plain(total: int, **settings: Any) -> tuple[nn.Module, sc.Pruner]:
    """The same training without any library."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner = sc.Pruner(model, "gmp", **RAMP, **settings).attach(optimizer)
    steps(model, optimizer, total)
    return pruner.finish(), pruner


# -- the state file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"threshold": "histogram"}, {"order": "layerwise"}])
def test_state_file_carries_everything(tmp_path: Path, options: dict[str, str]) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe = {**RAMP, "exclude": ("2.bias",), "options": options}
    pruner = sc.Pruner(model, "gmp", **recipe).attach(optimizer)
    steps(model, optimizer, 5)
    save_pruner(pruner, tmp_path / "pruner.safetensors")
    again = sc.Pruner(network(), "gmp", **recipe)
    load_pruner(again, tmp_path / "pruner.safetensors")
    mine, theirs = pruner.state_dict(), again.state_dict()
    for state in (mine, theirs):
        state["masks"] = {name: (entry["bits"].tolist(), entry["shape"]) for name, entry in state["masks"].items()}
    assert mine == theirs
    assert again.step_count == 5
    assert [p.name for p in tmp_path.iterdir()] == ["pruner.safetensors"]


def test_state_file_is_one_bit_a_weight_and_json(tmp_path: Path) -> None:
    save_pruner(sc.Pruner(network(), "gmp", **RAMP), tmp_path / "p")
    assert sum(t.nbytes for t in load_file(tmp_path / "p").values()) == 4 + 2  # 32 and 16 weights
    with safe_open(tmp_path / "p", "pt") as stored:
        assert json.loads(stored.metadata()["secateurs-pruner"])["recipe"]["sparsity"] == 0.75


def test_state_file_errors(tmp_path: Path) -> None:
    pruner = sc.Pruner(network(), "gmp", **RAMP)
    path = tmp_path / "p"
    with pytest.raises(BadInput, match="there is no pruner state"):
        load_pruner(pruner, path)
    save_pruner(pruner, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(CorruptFile, match="not a whole pruner state"):
        load_pruner(pruner, path)
    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(CorruptFile, match="not a whole pruner state"):
        load_pruner(pruner, path)
    save_pruner(pruner, path)
    with pytest.raises(BadInput, match=r"sparsity was 0\.75, now 0\.5"):
        load_pruner(sc.Pruner(network(), "gmp", **{**RAMP, "sparsity": 0.5}), path)
    with pytest.raises(BadInput, match="could not be written"):
        save_pruner(pruner, tmp_path / "no such folder" / "p")


# -- Hugging Face -----------------------------------------------------------------------------------------------------


class Rows(torch.utils.data.Dataset):
    """Token ids and a label that depends on them."""

    def __len__(self) -> int:
        return 48

    def __getitem__(self, i: int) -> dict[str, Any]:
        ids = torch.randint(0, 12, (6,), generator=torch.Generator().manual_seed(i))
        return {"input_ids": ids, "labels": int(ids.sum() % 2)}


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(7)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=12, max_position_embeddings=8, **sizes)
    return transformers.BertForSequenceClassification(config)


def trainer(out: Path, callback: Any, accumulate: int = 1, held_out: Any = None, **settings: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    args = transformers.TrainingArguments(
        output_dir=str(out), per_device_train_batch_size=4, max_steps=12, save_steps=5, logging_steps=3, learning_rate=0.01,
        gradient_accumulation_steps=accumulate, report_to=[], disable_tqdm=True, use_cpu=True, seed=11, **settings)  # fmt: skip
    return transformers.Trainer(bert(), args, train_dataset=Rows(), eval_dataset=held_out, callbacks=[callback])


def hugging_face(method: Any = "gmp", **settings: Any) -> Any:
    pytest.importorskip("transformers")
    from secateurs.train.integrations.hugging_face import PrunerCallback

    return PrunerCallback(method, **{**RAMP, **settings})


def test_trainer_prunes_and_logs(tmp_path: Path) -> None:
    callback = hugging_face()
    run = trainer(tmp_path, callback)
    run.train()
    assert callback.pruner.step_count == run.state.global_step == 12
    assert [row["step"] for row in callback.pruner.history] == [2, 4, 6, 8]
    for name, mask in callback.pruner.masks.items():
        weight = run.model.get_parameter(name)
        assert int(torch.count_nonzero(weight)) <= int(mask.sum()) == round(0.25 * mask.numel())
    by_step = {row["step"]: row["sparsity"] for row in run.state.log_history if "loss" in row}
    assert by_step[12] == callback.pruner.sparsity == 0.75
    assert by_step[3] == callback.pruner.history[0]["sparsity"]
    assert all(type(module).__dict__.get("_secateurs_masked") is None for module in run.model.modules())


def test_trainer_saves_the_pruned_model(tmp_path: Path) -> None:
    callback = hugging_face()
    run = trainer(tmp_path / "run", callback)
    run.train()
    run.save_model(str(tmp_path / "final"))
    saved = load_file(tmp_path / "final" / "model.safetensors")
    for name, mask in callback.pruner.masks.items():
        assert not saved[name][~mask].any(), name


@pytest.mark.parametrize("settings", [{}, {"enforcement": "overwrite"}, {"accumulate": 2}])
def test_trainer_resumes_to_the_same_bits(tmp_path: Path, settings: dict[str, Any]) -> None:
    accumulate = settings.get("accumulate", 1)
    settings = {name: value for name, value in settings.items() if name != "accumulate"}
    whole = trainer(tmp_path, hugging_face(**settings), accumulate)
    whole.train()
    assert (tmp_path / "checkpoint-5" / "pruner.safetensors").is_file()
    callback = hugging_face(**settings)
    resumed = trainer(tmp_path, callback, accumulate)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert callback.pruner.step_count == 12
    assert equal(dict(whole.model.state_dict()), dict(resumed.model.state_dict()))


def test_trainer_resumes_from_elsewhere(tmp_path: Path) -> None:
    trainer(tmp_path / "first", hugging_face()).train()
    checkpoint = tmp_path / "first" / "checkpoint-5"
    with pytest.raises(BadInput, match="there is no pruner state"):
        trainer(tmp_path / "second", hugging_face()).train(resume_from_checkpoint=str(checkpoint))
    callback = hugging_face(resume_from=checkpoint)
    trainer(tmp_path / "second", callback).train(resume_from_checkpoint=str(checkpoint))
    assert callback.pruner.history[0]["step"] == 2


def test_trainer_refuses_the_best_of_unpruned_checkpoints(tmp_path: Path) -> None:
    run = trainer(tmp_path, hugging_face(), held_out=Rows(), eval_strategy="steps", eval_steps=5, load_best_model_at_end=True)
    with pytest.raises(BadInput, match="load_best_model_at_end"):
        run.train()


def test_callback_arguments_are_checked_at_once() -> None:
    pytest.importorskip("transformers")
    from secateurs.train.integrations.hugging_face import PrunerCallback

    with pytest.raises(BadInput, match="did you mean 'sparsity'"):
        PrunerCallback("gmp", sparsty=0.5)
    with pytest.raises(BadInput, match="did you mean 'gmp'"):
        PrunerCallback("gnp", sparsity=0.5)
    recipe = sc.Recipe(method="gmp", sparsity=0.5)
    assert PrunerCallback(recipe, sparsity=0.75).recipe == sc.Recipe(method="gmp", sparsity=0.75)


# -- Accelerate -------------------------------------------------------------------------------------------------------


def accelerated(accumulate: int = 1) -> tuple[Any, Any, Any, sc.Pruner]:
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.GradientState._reset_state()  # it outlives its Accelerator, and another test may have left one
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model, optimizer = accelerator.prepare(model, optimizer)
    pruner = sc.Pruner(model, "gmp", **RAMP).attach(optimizer)
    accelerator.register_for_checkpointing(pruner)
    return accelerator, model, optimizer, pruner


def test_accelerate_is_the_plain_loop() -> None:
    _, model, optimizer, pruner = accelerated()
    steps(model, optimizer, 12)
    expected, _ = plain(12)
    assert equal(pruner.finish().state_dict(), expected.state_dict())
    assert zeros(expected) == {"0.weight": 24, "2.weight": 12}


def test_accelerate_counts_optimizer_steps_under_accumulation() -> None:
    accelerator, model, optimizer, pruner = accelerated(accumulate=3)
    x, y = data()
    for i in range(9):
        with accelerator.accumulate(model):
            accelerator.backward(nn.functional.cross_entropy(model(x[i : i + 4]), y[i : i + 4]))
            optimizer.step()
            optimizer.zero_grad()
    assert pruner.step_count == 3
    assert [row["step"] for row in pruner.history] == [2]


def test_accelerate_resumes_to_the_same_bits(tmp_path: Path) -> None:
    accelerator, model, optimizer, _ = accelerated()
    steps(model, optimizer, 5)
    accelerator.save_state(str(tmp_path / "state"))
    accelerator.free_memory()
    accelerator, model, optimizer, pruner = accelerated()
    accelerator.load_state(str(tmp_path / "state"))
    assert pruner.step_count == 5
    steps(model, optimizer, 7, first=5)
    assert equal(pruner.finish().state_dict(), plain(12)[0].state_dict())


# -- Lightning --------------------------------------------------------------------------------------------------------


def lightning_module() -> Any:
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, index: int) -> Tensor:
            x, y = batch
            return nn.functional.cross_entropy(self.net(x), y)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    return Module()


def fit(out: Path, ckpt_path: Path | None = None, **settings: Any) -> tuple[Any, Any, Any]:
    """Twelve batches of four in an epoch, unless told; a checkpoint after every epoch."""
    lightning = pytest.importorskip("lightning.pytorch")
    from secateurs.train.integrations.lightning_callback import PrunerCallback

    callback, module = PrunerCallback("gmp", **{**RAMP, **settings.pop("recipe", {})}), lightning_module()
    saving = lightning.callbacks.ModelCheckpoint(out, filename="{step}", save_top_k=-1)
    loader = DataLoader(TensorDataset(*data()), batch_size=settings.pop("batch", 4))
    run = lightning.Trainer(
        **{"max_epochs": 1, **settings}, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[callback, saving])  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the number of data workers
        run.fit(module, loader, ckpt_path=ckpt_path)
    return module, callback, run


def test_lightning_is_the_plain_loop(tmp_path: Path) -> None:
    module, callback, run = fit(tmp_path)
    expected, _ = plain(12)
    assert equal(module.net.state_dict(), expected.state_dict())
    assert callback.pruner.recipe.total_steps == 12
    assert float(run.callback_metrics["sparsity"]) == 0.75


def test_lightning_resumes_to_the_same_bits(tmp_path: Path) -> None:
    epochs = {"max_epochs": 3, "batch": 12, "recipe": {"every": 3}}  # Lightning resumes the data where an epoch begins
    whole, _, _ = fit(tmp_path, **epochs)
    checkpoint = tmp_path / "step=4.ckpt"
    torch.load(checkpoint, weights_only=True)  # nothing of ours needs more
    resumed, callback, _ = fit(tmp_path / "again", checkpoint, **epochs)
    assert callback.pruner.step_count == 12
    assert equal(whole.state_dict(), resumed.state_dict())


def test_lightning_counts_optimizer_steps_under_accumulation(tmp_path: Path) -> None:
    _, callback, _ = fit(tmp_path, accumulate_grad_batches=3, recipe={"begin": 0, "end": 4, "every": 2})
    assert callback.pruner.recipe.total_steps == callback.pruner.step_count == 4
    assert callback.pruner.sparsity == 0.75


def test_lightning_in_mixed_precision(tmp_path: Path) -> None:
    module, callback, _ = fit(tmp_path, precision="bf16-mixed")
    assert module.net[0].weight.dtype == torch.float32
    assert {f"net.{name}": count for name, count in zeros(module.net).items()} == {"net.0.weight": 24, "net.2.weight": 12}
    assert callback.pruner.sparsity == 0.75


def test_lightning_training_without_an_end(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no end"):
        fit(tmp_path, max_epochs=-1, max_steps=-1)


def test_lightning_optimizer_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="this module has 1 optimizers"):
        fit(tmp_path, recipe={"optimizer": 1})


# -- the examples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "saved", "needs"),
    [
        ("plain_loop", ".", "torch"),
        ("hugging_face_trainer", "sparse", "transformers"),
        ("accelerate_loop", "sparse", "accelerate"),
        ("lightning_module", "sparse", "lightning"),
    ],
)
def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, saved: str, needs: str) -> None:
    """Each trains on real digits, ends above chance, and saves what it promised."""
    pytest.importorskip(needs)
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(Path(__file__).parents[2] / "examples" / f"{name}.py"))
    assert found["main"](str(tmp_path / "out")) > 0.6
    total = json.loads((tmp_path / "out" / saved / "report.json").read_text())[-1]
    recipe = json.loads((tmp_path / "out" / saved / "recipe.json").read_text())
    assert total["sparsity"] == pytest.approx(recipe["sparsity"], abs=1e-3)
    stored = read_tensors(tmp_path / "out" / saved)
    assert sum(int((value == 0).sum()) for value in stored.values()) >= total["removed"]
