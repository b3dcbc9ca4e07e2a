import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from secateurs.demo import experiment, run
from secateurs.demo.network import build
from secateurs.demo.reload import reload_in_new_process
from secateurs.errors import BadInput
from secateurs.formats import load
from secateurs.recipe import Recipe


def start(out):
    console = Console(file=io.StringIO(), width=100)
    code = run(out, quick=True, workers=1, console=console)
    return code, console.file.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished quick experiment: its folder, exit code and what it printed. Copy the folder before changing it."""
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, *start(out)


def rows(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_the_experiment_from_training_to_the_reload_in_a_new_process(finished):
    out, code, printed = finished
    assert code == 0, printed
    assert "Reload check passed: sparse 90 %, seed 0, reloaded in a new process: outputs on 540 test images equal" in " ".join(
        printed.split()
    )
    assert [row.get("label") for row in rows(out)] == ["dense ×1.00", "sparse 90 %", "dense ×0.38", None]
    full, sparse, rival, latency = rows(out)
    assert sparse["bytes"] <= rival["bytes"] < full["bytes"]
    assert set(latency["median_s"]) == {"dense ×1.00", "sparse 90 %", "dense ×0.38"}
    assert all(0 <= row["accuracy"] <= 1 for row in (full, sparse, rival))


def test_the_promised_count_is_met_exactly(finished):
    _, sparse, _, _ = rows(finished[0])
    model = load(finished[0] / "best-sparse", factory=build)
    kept = [int(torch.count_nonzero(module.weight)) for module in (model.conv2, model.conv3, model.classify)]
    assert kept == [4608 - 4147, 18432 - 16589, 640 - 576]  # floor(0.9 n + 1/2) removed of each
    assert sparse["nonzero"] == sum(int(torch.count_nonzero(p)) for p in model.parameters())


def test_everything_promised_is_in_the_folder(finished):
    out = finished[0]
    assert not list(out.rglob("*.partial"))
    assert {path.name for path in out.iterdir()} == {
        "best-sparse", "curves-dark.png", "curves.png", "index.html", "models", "recipe-gmp-0.9.yaml", "results.jsonl",
        "summary.json", "table.md",
    }  # fmt: skip
    assert Recipe.from_yaml(out / "recipe-gmp-0.9.yaml").sparsity == 0.9
    assert "| 90 % | sparse 90 % |" in (out / "table.md").read_text()
    page = (out / "index.html").read_text()
    assert "http" not in page and "sparse 90 %" in page and "passed" in page


def test_only_the_missing_is_run_and_the_bits_are_the_same(finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished[0], tmp_path / "out")
    first = rows(out)
    lost = first[1]["model"]
    shutil.rmtree(out / "models" / lost)
    monkeypatch.setattr(experiment, "_report", lambda *_: None)
    assert start(out)[0] == 0
    assert [row.get("model") for row in rows(out)[4:]] == [lost]
    old, new = (load_file(folder / "models" / lost / "weights.safetensors") for folder in (finished[0], out))
    assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)


def test_what_is_finished_is_not_run_again_and_a_model_that_does_not_come_back_gives_exit_code_3(
    finished, tmp_path, monkeypatch
):
    out = shutil.copytree(finished[0], tmp_path / "out")
    logits = next((out / "models").glob("gmp-*.logits.safetensors"))
    save_file({"logits": load_file(logits)["logits"] + 1}, logits)

    def never(*_):
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr("secateurs.demo.experiment.train", never)
    before = (out / "results.jsonl").read_text()
    code, printed = start(out)
    assert (code, (out / "results.jsonl").read_text()) == (3, before)
    assert "Reload check FAILED" in printed and "NOT equal, largest difference 1" in " ".join(printed.split())
    assert "sparse 90 %" in printed and "failed" in (out / "index.html").read_text()


def test_an_altered_file_fails_the_reload_with_its_reason(finished, tmp_path):
    folder = shutil.copytree(finished[0] / "best-sparse", tmp_path / "best")
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    outcome = reload_in_new_process(folder, next((finished[0] / "models").glob("gmp-*.logits.safetensors")))
    assert outcome["equal"] is False and "CorruptFile" in outcome["error"]


def test_bad_input_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be the folder"):
        run(tmp_path / "file", quick=True)
    with pytest.raises(BadInput, match="seeds=0"):
        run(tmp_path, seeds=0)
    with pytest.raises(BadInput, match="workers=0"):
        run(tmp_path, quick=True, workers=0)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads processes from /proc")
def test_killed_at_work_it_leaves_no_process_and_goes_on_from_there(tmp_path):
    program = "from secateurs.demo import run; import sys; sys.exit(run(sys.argv[1], quick=True, workers=2))"
    command = [sys.executable, "-c", program, str(tmp_path)]
    results = tmp_path / "results.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not results.exists() and process.poll() is None:
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert children
    deadline = time.monotonic() + 30
    while any(_alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(child) for child in children)
    done = results.read_text()
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert results.read_text().startswith(done.rpartition("\n")[0])
    assert len({row["id"] for row in rows(tmp_path)}) == len(rows(tmp_path)) == 4


def _alive(pid):
    try:
        os.kill(int(pid), 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
