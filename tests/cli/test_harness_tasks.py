"""secateurs evaluate --tasks: lm-evaluation-harness with a local task file, and no hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from secateurs.cli.harness_tasks import evaluate_tasks
from secateurs.cli.opening import Source
from tests.cli.speakers import WORDS, save_model, save_tokenizer

TASK = """\
task: which_word
dataset_path: json
dataset_kwargs:
  data_files:
    test: rows.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{said}}"
doc_to_choice: "{{words}}"
doc_to_target: "{{answer}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def speaker(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(here / "cache"))
    (here / "task.yaml").write_text(TASK)
    path = save_model("llama", here / "llama")
    save_tokenizer(path)
    return path


def preferred(folder: Path, said: str, words: list[str]) -> int:
    """Which of two words of one token each the model finds more likely to follow, by its logits."""
    model = Source(folder).open().model
    ids = torch.tensor([[int(word[1:]) + 4 for word in said.split()]])
    with torch.no_grad():
        last = model(input_ids=ids).logits[0, -1]
    return int(last[[int(word[1:]) + 4 for word in words]].argmax())


def test_a_task_of_ones_own(speaker: Path, as_json, command) -> None:
    pytest.importorskip("lm_eval")
    rows = []
    for i in range(6):
        row = {"said": f"{WORDS[i]} {WORDS[i + 9]}", "words": [WORDS[2 * i], WORDS[3 * i + 20]]}
        rows.append(row | {"answer": preferred(speaker, row["said"], row["words"])})
    rows[0]["answer"] = 1 - rows[0]["answer"]  # one of six is wrong
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = as_json("evaluate", speaker, "--tasks", "task.yaml")
    (row,) = told["tasks"]
    assert (row["task"], row["metric"], row["samples"]) == ("which_word", "acc", 6)
    assert row["value"] == pytest.approx(5 / 6) and row["stderr"] == pytest.approx((5 / 36 / 5) ** 0.5)
    (row,) = as_json("evaluate", speaker, "--tasks", "task.yaml", "--limit", 1)["tasks"]
    assert (row["value"], row["samples"]) == (0, 1)
    result = command("evaluate", speaker, "--tasks", "task.yaml")
    assert result.exit_code == 0 and "0.8333" in result.stdout and "By lm-evaluation-harness" in result.stdout


@pytest.mark.parametrize(
    ("flags", "quotes"),
    [
        (["--tasks", "absent.yaml"], "'absent.yaml' does not exist"),
        pytest.param(["--tasks", "no_such_task"], "the harness has no task 'no_such_task'", marks=pytest.mark.slow),
        (["--tasks", " , "], "give names of tasks, or paths of task files"),
        (["--tasks", "task.yaml"], "the harness cannot do them"),  # its rows do not exist
    ],
)
def test_tasks_that_do_not_do(speaker: Path, command, flags: list[str], quotes: str) -> None:
    pytest.importorskip("lm_eval")
    result = command("evaluate", speaker, *flags)
    assert result.exit_code == 2, result.output
    assert quotes in result.stderr


def test_a_model_that_continues_nothing(here: Path, command) -> None:
    pytest.importorskip("lm_eval")
    pytest.importorskip("transformers")
    (here / "task.yaml").write_text(TASK)
    result = command("evaluate", save_model("bert", here / "bert"), "--tasks", "task.yaml")
    assert result.exit_code == 2 and "BertForMaskedLM: the harness's tasks are for models that continue text" in result.stderr


def test_one_thing_at_a_time(speaker: Path, command) -> None:
    for flags, found in (((), "neither"), (("--tasks", "a", "--perplexity", "b"), "--perplexity and --tasks")):
        result = command("evaluate", speaker, *flags)
        assert result.exit_code == 2 and f"give one of --perplexity or --tasks (found {found})" in result.stderr


def test_without_the_harness_the_extra_is_named(speaker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from secateurs.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtra, match=r"'lm_eval', which is not installed: pip install 'secateurs\[eval\]'"):
        evaluate_tasks(Source(speaker), "task.yaml", None, False)
