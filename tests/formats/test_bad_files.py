"""What is not ours, damaged, newer or of another network is refused with a message that says so; saving is all or nothing."""

import errno
import json
import os
import subprocess
import sys
import textwrap
import types

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput, CorruptFile
from secateurs.formats import folder as folder_module
from secateurs.formats import load, manifest, read_info, save


def net(inputs=40):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(inputs, 30), nn.ReLU(), nn.Linear(30, 3))
    with torch.no_grad():
        model[0].weight.masked_fill_(torch.rand(30, inputs) < 0.9, 0)
    return model


@pytest.fixture
def saved(tmp_path):
    save(net(), tmp_path / "m")
    return tmp_path / "m"


def edit(folder, change, sign=True):
    """Change the manifest; ``sign`` gives it the right checksum again, as an attacker or a careless tool would."""
    info = json.loads((folder / "secateurs.json").read_text())
    change(info)
    if sign:
        info["sha256"] = manifest._own_digest(info)
    (folder / "secateurs.json").write_text(json.dumps(info))


def sign_weights(folder):
    def change(info):
        file = folder / "weights.safetensors"
        info["files"][file.name] = {"bytes": file.stat().st_size, "sha256": manifest._digest(file)}

    edit(folder, change)


def test_not_a_saved_folder(tmp_path):
    with pytest.raises(BadInput, match="is not a folder"):
        load(tmp_path / "nothing")
    with pytest.raises(BadInput, match=r"has no secateurs.json: secateurs.save did not write it$"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="opens with from_pretrained"):
        load(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_weights(saved, share):
    data = (saved / "weights.safetensors").read_bytes()
    (saved / "weights.safetensors").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CorruptFile, match=rf"weights.safetensors has \d+ bytes instead of {len(data)}: truncated"):
        load(saved, net)
    sign_weights(saved)  # even with a fitting checksum
    with pytest.raises(CorruptFile, match="not a whole safetensors file"):
        load(saved, net)


@pytest.mark.parametrize("place", [0.2, 0.6, 0.999])
def test_one_flipped_bit_in_the_weights(saved, place):
    data = bytearray((saved / "weights.safetensors").read_bytes())
    data[int(len(data) * place)] ^= 1
    (saved / "weights.safetensors").write_bytes(data)
    with pytest.raises(CorruptFile, match=r"weights.safetensors was altered"):
        load(saved, net)


def test_missing_weights(saved):
    (saved / "weights.safetensors").unlink()
    with pytest.raises(CorruptFile, match=r"lacks 'weights.safetensors'"):
        load(saved, net)


def test_altered_side_file(tmp_path):
    save(net(), tmp_path / "m", recipe={"sparsity": 0.9})
    (tmp_path / "m" / "recipe.json").write_text((tmp_path / "m" / "recipe.json").read_text().replace("0.9", "0.8"))
    with pytest.raises(CorruptFile, match=r"recipe.json was altered"):
        load(tmp_path / "m", net)


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_truncated_manifest(saved, share):
    text = (saved / "secateurs.json").read_text()
    (saved / "secateurs.json").write_text(text[: int(len(text) * share)])
    with pytest.raises(CorruptFile, match=r"secateurs.json is not whole"):
        load(saved, net)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"{}", b'{"format": "other", "version": 1}', b"[" * 100_000])
def test_a_manifest_that_is_none(saved, data):
    (saved / "secateurs.json").write_bytes(data)
    with pytest.raises(CorruptFile):
        load(saved, net)


def test_altered_manifest(saved):
    edit(saved, lambda info: info["tensors"]["0.weight"].update(shape=[40, 30]), sign=False)
    with pytest.raises(CorruptFile, match=r"secateurs.json was altered"):
        read_info(saved)


def test_newer_version_is_named_before_anything_else(saved):
    edit(saved, lambda info: info.update(version=2, tensors="in another form"), sign=False)
    with pytest.raises(CorruptFile, match=r"format version 2; this library reads up to 1: upgrade secateurs"):
        load(saved, net)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i["tensors"]["0.weight"].update(encoding="zip"), "'0.weight' has an unknown encoding"),
        (lambda i: i["tensors"]["0.weight"].update(dtype="object"), "'0.weight' has an unknown encoding or dtype"),
        (lambda i: i["tensors"]["0.weight"].update(shape=[-1, 4]), "'0.weight' has no shape"),
        (lambda i: i["tensors"]["0.weight"].update(shape=[10**12]), "takes 125000000000 bytes, found 150"),
        (lambda i: i["tensors"]["0.bias"].update(shape=[29]), r"promised torch.float32 \(29,\)"),
        (lambda i: i["tensors"]["0.bias"].update(dtype="float16"), "'0.bias' in .*: found torch.float32"),
        (lambda i: i["tensors"].pop("0.bias"), "differ in 1 tensors, first '0.bias'"),
        (lambda i: i["ties"].update(x="y"), "'x' is tied to a tensor that is not there"),
        (lambda i: i["files"].update({"../secret": {"bytes": 1, "sha256": ""}}), "'../secret' is not a plain file name"),
        (lambda i: i["files"].clear(), "no file entry for 'weights.safetensors'"),
        (lambda i: i.pop("sizes"), "'sizes' is missing"),
    ],
)
def test_inconsistent_manifests(saved, change, message):
    edit(saved, change)
    with pytest.raises(CorruptFile, match=message):
        load(saved, net)


@pytest.mark.parametrize("name", ["os", "AutoModel", "GPT2Config", "__class__", "models.gpt2", "Trainer", ""])
def test_only_model_classes_of_transformers_are_built(saved, name):
    pytest.importorskip("transformers")
    (saved / "config.json").write_text("{}")
    edit(saved, lambda info: info.update(model={"kind": "huggingface", "class": name}))
    with pytest.raises(CorruptFile, match="is not a model class of the installed transformers"):
        load(saved)


class TestFactory:
    def test_needed_for_plain_modules(self, saved):
        with pytest.raises(BadInput, match=r"a plain module \(torch.nn.modules.container.Sequential\): pass factory="):
            load(saved)

    def test_of_other_shapes(self, saved):
        with pytest.raises(
            BadInput, match=r"'0.weight' is torch.float32 \(30, 41\), the folder holds torch.float32 \(30, 40\)"
        ):
            load(saved, lambda: net(41))

    def test_of_another_dtype(self, saved):
        with pytest.raises(BadInput, match=r"'0.weight' is torch.float64"):
            load(saved, lambda: net().double())

    def test_of_other_names(self, saved):
        with pytest.raises(BadInput, match=r"'3.weight' and 1 more are in the network but not in the folder"):
            load(saved, lambda: net().append(nn.Linear(3, 3)))
        with pytest.raises(BadInput, match=r"'2.weight' and 1 more are in the folder but not in the network"):
            load(saved, lambda: net()[:2])

    def test_that_ties_what_the_folder_holds_apart(self, tmp_path):
        save(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), tmp_path / "m")

        def tied():
            model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
            model[1].weight = model[0].weight
            return model

        with pytest.raises(BadInput, match=r"ties '1.weight' to '0.weight'"):
            load(tmp_path / "m", tied)

    def test_on_the_meta_device(self, saved):
        with pytest.raises(BadInput, match="on the meta device"):
            load(saved, lambda: net().to("meta"))

    def test_that_is_none(self, saved):
        with pytest.raises(BadInput, match=r"returned OrderedDict: it must return a torch.nn.Module"):
            load(saved, lambda: net().state_dict())


class TestUnsavable:
    def check(self, model, message, path):
        with pytest.raises(BadInput, match=message):
            save(model, path / "m")
        assert not list(path.iterdir())

    def test_meta(self, tmp_path):
        self.check(net().to("meta"), "'0.weight': it is on the meta device", tmp_path)

    def test_still_pruning(self, tmp_path):
        model = net()
        model[0].__class__ = type("Linear", (nn.Linear,), {"_secateurs_masked": True})
        self.check(model, r"'0' still has a pruner attached: call pruner.finish\(\) first", tmp_path)

    def test_wrappers(self, tmp_path):
        self.check(nn.DataParallel(net()), "save the model inside it, model.module", tmp_path)
        self.check(torch.compile(net()), "save the model inside it, model._orig_mod", tmp_path)

    def test_odd_tensors(self, tmp_path):
        model = nn.Module()
        model.register_buffer("w", torch.eye(3).to_sparse())
        self.check(model, "'w': its layout is torch.sparse_coo", tmp_path)
        model.w = torch.zeros(2, dtype=torch.complex64)
        self.check(model, "'w': its dtype torch.complex64", tmp_path)

    def test_extra_state(self, tmp_path):
        class Extra(nn.Linear):
            def get_extra_state(self):
                return {"a": 1}

        self.check(Extra(2, 2), "'_extra_state': it is extra state of type dict", tmp_path)

    def test_not_a_module(self, tmp_path):
        self.check(net().state_dict(), "give a torch.nn.Module", tmp_path)

    def test_unknown_format(self, tmp_path):
        with pytest.raises(BadInput, match=r"unknown format 'hugginface'.*did you mean 'huggingface'"):
            save(net(), tmp_path / "m", format="hugginface")
        with pytest.raises(BadInput, match="is not a Hugging Face model"):
            save(net(), tmp_path / "m", format="huggingface")
        assert not list(tmp_path.iterdir())


class TestAllOrNothing:
    def test_existing_folder_is_replaced_only_when_asked(self, saved):
        before = (saved / "weights.safetensors").read_bytes()
        with pytest.raises(BadInput, match="exists: give another name, or overwrite=True"):
            save(net(50), saved)
        assert (saved / "weights.safetensors").read_bytes() == before
        save(net(50), saved, recipe={"a": 1}, overwrite=True)
        assert load(saved, lambda: net(50))[0].weight.shape == (30, 50)
        assert [item.name for item in saved.parent.iterdir()] == ["m"]

    def test_other_peoples_folders_are_never_deleted(self, tmp_path):
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "thesis.txt").write_text("x")
        with pytest.raises(BadInput, match=r"not just a saved model.*refusing to delete"):
            save(net(), tmp_path / "home", overwrite=True)
        save(net(), tmp_path / "home" / "m")
        (tmp_path / "home" / "m" / "runs").mkdir()
        with pytest.raises(BadInput, match="has folders inside"):
            save(net(), tmp_path / "home" / "m", overwrite=True)
        assert (tmp_path / "home" / "thesis.txt").exists()

    def test_a_file_or_an_empty_folder_in_the_way(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(BadInput, match="is a file"):
            save(net(), tmp_path / "file", overwrite=True)
        (tmp_path / "m").mkdir()
        save(net(), tmp_path / "m")
        assert load(tmp_path / "m", net)

    @pytest.mark.parametrize("step", ["fsync", "write_text", "rename", "mkdir"])
    def test_a_full_disk_leaves_the_old_model_and_nothing_else(self, saved, monkeypatch, step):
        def full(*args, **kwargs):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            owner = {"fsync": folder_module.os, "write_text": type(saved), "rename": type(saved), "mkdir": type(saved)}[step]
            patch.setattr(owner, step, full)
            with pytest.raises(BadInput, match=r"could not write .*No space left on device; nothing was left behind"):
                save(net(50), saved, overwrite=True)
            with pytest.raises(BadInput, match="No space left on device"):
                save(net(50), saved.parent / "new" / "deeper")
        assert [item.name for item in saved.parent.iterdir()] == ["m"]
        assert load(saved, net)

    def test_the_old_model_returns_if_the_last_rename_fails(self, saved, monkeypatch):
        real = type(saved).rename

        def rename(self, target):
            if self.name.endswith(".partial"):
                raise OSError(errno.EIO, "I/O error")
            return real(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(type(saved), "rename", rename)
            with pytest.raises(BadInput, match="I/O error"):
                save(net(50), saved, overwrite=True)
        assert [item.name for item in saved.parent.iterdir()] == ["m"]
        assert load(saved, net)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_an_interrupt_or_a_failing_plan_leaves_nothing(self, tmp_path, error):
        def stop(folder):
            (folder / "plan.json").write_text("{}")
            raise error

        with pytest.raises(error):
            save(net(), tmp_path / "m", plan=types.SimpleNamespace(save=stop))
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
    def test_a_real_write_that_fails_half_way(self, tmp_path):
        """The process may write 100 kB a file and the weights take 4 MB, so the writing library itself meets the limit."""
        code = textwrap.dedent("""
            import resource, sys
            sys.path[:0] = sys.argv[2:]
            from torch import nn
            from secateurs.errors import BadInput
            from secateurs.formats import save
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            try:
                save(nn.Linear(1000, 1000), sys.argv[1])
            except BadInput as error:
                print(error)
        """)
        run = [sys.executable, "-c", code, str(tmp_path / "runs" / "m"), *filter(None, sys.path)]
        done = subprocess.run(run, capture_output=True, text=True, timeout=120)
        assert "could not write" in done.stdout and "File too large" in done.stdout, done.stderr
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_without_permission(self, tmp_path):
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(BadInput, match="Permission denied"):
                save(net(), tmp_path / "m")
        finally:
            tmp_path.chmod(0o700)
