"""Text as windows of token ids: random crops to calibrate on, consecutive ones to evaluate on.

A source is a ``.txt`` file (one text), a ``.jsonl`` or ``.parquet`` file (a text per row, in one column), or the name of a
dataset, where the ``datasets`` library is installed. Texts are encoded one by one, each between the tokenizer's begin and end
marks where it has them, and put one behind the other.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateurs.errors import BadInput, CorruptFile
from secateurs.statistics.columns import dataset_column, other_columns, parquet_column

__all__ = ["Encoder", "consecutive_windows", "random_windows", "read_texts"]

_AT_ONCE = 256  # texts encoded together
_FOLD = 4  # crops are taken from at least so many times their tokens


@dataclass(frozen=True)
class Encoder:
    """What is needed of a tokenizer: ``encode`` turns texts into ids without marks; ``begin`` and ``end`` wrap a text."""

    encode: Callable[[list[str]], Sequence[Sequence[int]]]
    begin: int | None = None
    end: int | None = None
    vocabulary: int | None = None  # how many ids the model knows

    @classmethod
    def of(cls, tokenizer: Any, vocabulary: int | None = None) -> Encoder:
        """That of a transformers tokenizer."""

        def encode(texts: list[str]) -> Sequence[Sequence[int]]:
            found: Sequence[Sequence[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
            return found

        return cls(encode, tokenizer.bos_token_id, tokenizer.eos_token_id, vocabulary)


def read_texts(source: str | Path, column: str = "text") -> list[str]:
    """The texts of ``source`` in order, those that are empty or blank left out.

    Raises:
        BadInput: there is no such file or dataset, no such column, or no text in it.
        CorruptFile: a file cannot be read as what its name says.
        MissingExtra: a parquet file, and pyarrow is not installed.
    """
    path = Path(source).expanduser()
    readers = {".txt": _plain, ".jsonl": _json_lines, ".parquet": _parquet}
    if path.suffix in readers and path.is_file():
        found = readers[path.suffix](path, column)
    elif path.suffix in readers and not path.exists():
        raise BadInput(f"{str(source)!r} does not exist")
    elif path.exists():
        raise BadInput(f"{str(source)!r} is no text that can be read: give a .txt, .jsonl or .parquet file")
    else:
        found = [str(text) for text in dataset_column(str(source), column, "a .txt, .jsonl or .parquet file")]
    texts = [text for text in found if text.strip()]
    if not texts:
        raise BadInput(f"{str(source)!r} holds no text")
    return texts


def random_windows(texts: Iterable[str], encoder: Encoder, samples: int, length: int, seed: int = 0) -> Tensor:
    """``samples`` random crops ``[samples, length]`` of the texts in random order; both orders follow ``seed``.

    Of large sources only as many texts are encoded as make four times the tokens.

    Raises:
        BadInput: there are fewer tokens than one window, or ids the model does not know.
    """
    _check(samples=samples, length=length)
    shuffled = list(texts)
    random.Random(seed).shuffle(shuffled)
    stream = _stream(shuffled, encoder, _FOLD * samples * length)
    _enough(stream, length)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(stream) - length + 1, (samples,), generator=generator)
    return stream[starts[:, None] + torch.arange(length)]


def consecutive_windows(texts: Iterable[str], encoder: Encoder, length: int, most: int | None = None) -> Tensor:
    """The texts in their order as windows ``[n, length]`` that do not overlap, a short rest left out; at most ``most``.

    Raises:
        BadInput: there are fewer tokens than one window, or ids the model does not know.
    """
    _check(length=length, **({} if most is None else {"windows": most}))
    stream = _stream(list(texts), encoder, None if most is None else most * length)
    _enough(stream, length)
    count = min(len(stream) // length, most or len(stream))
    return stream[: count * length].view(count, length)


def _stream(texts: Sequence[str], encoder: Encoder, least: int | None) -> Tensor:
    """Ids one behind the other, of as many texts as make ``least``."""
    ids: list[int] = []
    marks = [[] if mark is None else [mark] for mark in (encoder.begin, encoder.end)]
    for start in range(0, len(texts), _AT_ONCE):
        for own in encoder.encode(list(texts[start : start + _AT_ONCE])):
            ids += [*marks[0], *own, *marks[1]]
        if least is not None and len(ids) >= least:
            break
    if ids and encoder.vocabulary is not None and max(ids) >= encoder.vocabulary:
        raise BadInput(f"the tokenizer gives the id {max(ids)}, and the model knows {encoder.vocabulary} ids, 0 to "
                       f"{encoder.vocabulary - 1}: it is the tokenizer of another model")  # fmt: skip
    return torch.tensor(ids, dtype=torch.long)


def _enough(stream: Tensor, length: int) -> None:
    if len(stream) < length:
        raise BadInput(f"the text has {len(stream)} tokens, fewer than one window of length={length}: give more text, or a "
                       "shorter length")  # fmt: skip


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < (2 if name == "length" else 1):
            raise BadInput(f"{name}={value!r}: give a whole number, at least {2 if name == 'length' else 1}")


def _plain(path: Path, column: str) -> list[str]:
    try:
        return [path.read_text(encoding="utf-8")]
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{str(path)!r} is not text in UTF-8: {error}") from error


def _json_lines(path: Path, column: str) -> list[str]:
    texts = []
    for number, line in enumerate(_plain(path, column)[0].splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise CorruptFile(f"{str(path)!r}, line {number}, is not JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get(column), str):
            known = list(row) if isinstance(row, dict) else []
            raise BadInput(f"{str(path)!r}, line {number}, has no text under {column!r}{other_columns(column, known)}")
        texts.append(row[column])
    return texts


def _parquet(path: Path, column: str) -> list[str]:
    rows = parquet_column(path, column)
    if odd := next((row for row in rows if not isinstance(row, str)), None):
        raise BadInput(f"column {column!r} of {str(path)!r} holds {type(odd).__name__}, not text")
    return rows
