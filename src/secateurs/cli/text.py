"""Text on the command line: its tokenizer, its windows, and perplexity with its convention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from secateurs.cli.opening import Opened
from secateurs.errors import BadInput
from secateurs.extras import require
from secateurs.measure import perplexity
from secateurs.statistics.text import Encoder, consecutive_windows, read_texts

__all__ = ["CONVENTION", "Perplexity", "Text", "at_once", "batches_of", "finite", "is_causal", "known_ids", "open_tokenizer",
           "usual_length"]  # fmt: skip

CONVENTION = ("exp of the mean next-token loss over non-overlapping windows, each judged by itself; the texts one behind the "
              "other, each between begin and end marks where the tokenizer has them")  # fmt: skip
_CAUSAL = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True)
class Text:
    """Where text comes from, and how it is cut."""

    source: str
    length: int
    column: str = "text"

    def windows(self, opened: Opened, most: int | None, trust_remote_code: bool) -> list[dict[str, Tensor]]:
        """Batches of consecutive windows."""
        encoder = Encoder.of(open_tokenizer(opened, trust_remote_code), known_ids(opened.model))
        return batches_of(consecutive_windows(read_texts(self.source, self.column), encoder, self.length, most))


@dataclass(frozen=True)
class Perplexity:
    """Windows to measure perplexity on, and words for what they are."""

    batches: list[dict[str, Tensor]]
    of: str

    def measure(self, model: nn.Module) -> float:
        """Perplexity, as :data:`CONVENTION` says."""
        return perplexity(model, [{**batch, "labels": batch["input_ids"]} for batch in self.batches])

    def facts(self) -> dict[str, Any]:
        """How it was measured, for JSON."""
        shapes = [tuple(batch["input_ids"].shape) for batch in self.batches]
        return {"text": self.of, "windows": sum(n for n, _ in shapes), "length": shapes[0][1], "convention": CONVENTION}


def batches_of(windows: Tensor) -> list[dict[str, Tensor]]:
    """Windows as batches of about 2,048 tokens."""
    return [{"input_ids": part} for part in windows.split(at_once(windows.shape[1]))]


def at_once(length: int) -> int:
    """How many windows of ``length`` tokens make a batch."""
    return max(1, 2048 // length)


def is_causal(model: nn.Module) -> bool:
    """Whether the model says which token comes next."""
    return type(model).__name__.endswith(_CAUSAL)


def usual_length(model: nn.Module, most: int = 2048) -> int:
    """2,048 tokens, or fewer where the model takes no more."""
    config: Any = getattr(model, "config", None)
    able = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return min(most, able) if isinstance(able, int) and able > 1 else most


def finite(value: float) -> float | None:
    """For JSON, which knows no infinity."""
    return value if math.isfinite(value) else None


def open_tokenizer(opened: Opened, trust_remote_code: bool) -> Any:
    """The tokenizer in the model's folder.

    Raises:
        BadInput: there is none that can be opened.
    """
    transformers = require("transformers", "transformers")
    folder = Path(opened.path)
    said = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, **said)
    except Exception as error:
        raise BadInput(f"{str(folder)!r} holds no tokenizer that can be opened, and text needs one: {type(error).__name__}: "
                       f"{error}") from error  # fmt: skip


def known_ids(model: nn.Module) -> int | None:
    """How many token ids the model knows; None where it does not say."""
    try:
        embeddings = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return getattr(embeddings, "num_embeddings", None)
