"""What a task's data function gives, in one form: mappings of splits that hand out batches by index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from secateurs.errors import BadInput, near
from secateurs.measure.mode import to_device

__all__ = ["Split", "can_wrap", "shares_examples", "split_of", "wrap"]

_SAMPLED = 64  # test examples looked for in the training data


class Split:
    """Examples by number: ``len(split)``, ``split.batch(index)``, ``split.batches(size)``. Batches are on ``device``.

    ``source`` is (1) a tuple of tensors with the same first dimension, (2) any object with ``__len__`` and
    ``batch(index) -> batch``, or (3) a map-style dataset (``__len__``, ``__getitem__``), collated by torch's default.
    What else the source has (a tokenizer, texts) is reached as ``split.source``.

    Raises:
        BadInput: the source is none of these.
    """

    def __init__(self, source: Any, device: torch.device | str = "cpu"):
        if not can_wrap(source):
            raise BadInput(f"a split is a tuple of tensors of one length, a dataset with __len__ and __getitem__, or an object "
                           f"with __len__ and batch(index); found a {type(source).__name__}")  # fmt: skip
        self.source, self.device = source, torch.device(device)

    def __len__(self) -> int:
        return len(self.source[0]) if _is_tensors(self.source) else len(self.source)

    def batch(self, index: Tensor) -> Any:
        """The examples with the numbers ``index`` (int64, 1-D), in this order, as one batch."""
        if _is_tensors(self.source):
            found: Any = tuple(tensor[index] for tensor in self.source)
        elif hasattr(self.source, "batch"):
            found = self.source.batch(index)
        else:
            found = default_collate([self.source[i] for i in index.tolist()])
        return to_device(found, self.device)

    def batches(self, size: int) -> Iterator[Any]:
        """All examples in order, ``size`` at a time; the last batch may be smaller."""
        for at in range(0, len(self), size):
            if _is_tensors(self.source):  # a slice copies nothing
                yield to_device(tuple(tensor[at : at + size] for tensor in self.source), self.device)
            else:
                yield self.batch(torch.arange(at, min(at + size, len(self))))


def can_wrap(source: Any) -> bool:
    """Whether :class:`Split` takes ``source``."""
    if isinstance(source, (Mapping, str, bytes, Tensor, np.ndarray)):
        return False
    if isinstance(source, (tuple, list)) and source and all(isinstance(item, Tensor) for item in source):
        return _is_tensors(source)
    return hasattr(source, "__len__") and (hasattr(source, "batch") or hasattr(source, "__getitem__"))


def wrap(data: Any, task: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The mapping a data function gave, with every value that can be one a :class:`Split`; the rest passes through.

    Raises:
        BadInput: no mapping, no ``train`` or ``test`` in it, or an empty split.
    """
    if not isinstance(data, Mapping):
        raise BadInput(f"task {task!r}: its data function returned a {type(data).__name__}; it must return a mapping with "
                       "'train', 'test' and perhaps 'validation'")  # fmt: skip
    for name in ("train", "test"):
        if name not in data:
            raise BadInput(f"task {task!r}: its data has no {name!r}, only {', '.join(map(repr, data)) or 'nothing'}")
    return {name: _wrapped(value, f"task {task!r}: data[{name!r}]", device) for name, value in data.items()}


def _wrapped(value: Any, what: str, device: torch.device | str) -> Any:
    if isinstance(value, (tuple, list)) and value and all(isinstance(t, Tensor) for t in value) and not _is_tensors(value):
        raise BadInput(f"{what} has tensors of different lengths: " + ", ".join(str(len(t) if t.dim() else 0) for t in value))
    if callable(value) or not can_wrap(value):
        return value
    split = Split(value, device)
    if len(split) == 0:
        raise BadInput(f"{what} has no examples")
    return split


def split_of(data: Mapping[str, Any], name: str, task: str) -> Any:
    """``data[name]``.

    Raises:
        BadInput: there is none.
    """
    if name not in data:
        raise BadInput(f"task {task!r}: its data has no {name!r}, only {', '.join(map(repr, data))}" + near(name, data))
    return data[name]


def shares_examples(train: Any, test: Any) -> bool:
    """Whether ``test`` is training data: the same object, the same memory, or at least half of a sample found in ``train``.

    Exact for tuples of tensors, where the sample is looked for among all training examples; other splits are read only at
    the sampled numbers, so that only an equal split is found.
    """
    if train is test:
        return True
    if not (isinstance(train, Split) and isinstance(test, Split)):
        return False
    if train.source is test.source:
        return True
    sample = torch.linspace(0, len(test) - 1, min(_SAMPLED, len(test))).long()
    if _is_tensors(train.source) and _is_tensors(test.source):
        return _share_found(train.source, test.source, sample) >= 0.5
    return len(train) == len(test) and _equal(train.batch(sample), test.batch(sample))


def _share_found(train: Any, test: Any, sample: Tensor) -> float:
    """The share of the sampled test examples that equal a training example in every tensor."""
    if [t.shape[1:] for t in train] != [t.shape[1:] for t in test]:
        return 0.0
    marks, looked_for = _projection(train[0]), _projection(test[0][sample])
    found = 0
    for mark, i in zip(looked_for.tolist(), sample.tolist(), strict=True):
        close = torch.nonzero((marks - mark).abs() <= 1e-4 * (1 + abs(mark)))[:8, 0].tolist()
        found += any(all(torch.equal(a[k], b[i]) for a, b in zip(train, test, strict=True)) for k in close)
    return found / len(sample)


def _projection(values: Tensor) -> Tensor:
    """One number for every example ``[n]``: equal examples have (nearly) the same."""
    size = values[0].numel()
    weights = torch.rand(size, generator=torch.Generator().manual_seed(0)) + 0.5
    return torch.cat([part.reshape(len(part), size).float() @ weights for part in values.split(4096)]).double()


def _equal(a: Any, b: Any) -> bool:
    left, right = torch.utils._pytree.tree_leaves(a), torch.utils._pytree.tree_leaves(b)
    return len(left) == len(right) and all(
        torch.equal(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else bool(x == y)
        for x, y in zip(left, right, strict=True)
    )


def _is_tensors(source: Any) -> bool:
    return (isinstance(source, (tuple, list)) and len(source) > 0 and all(isinstance(t, Tensor) and t.dim() > 0 for t in source)
            and len({len(t) for t in source}) == 1)  # fmt: skip
