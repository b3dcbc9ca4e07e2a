"""Running sums over the inputs of a layer that merge: one batch of n gives what n batches of one give, and shards add up.

An input has features last, ``[..., features]``; everything before them is tokens. A mask (boolean, True = counts) leaves
padding out. Tokens and sequences are both counted, so a sum can be divided by either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from secateurs.errors import BadInput, near

__all__ = ["ACCUMULATORS", "Accumulator", "Gram", "Moments", "Norms", "find_accumulator"]


class Accumulator:
    """The contract: ``update`` with batches, ``merge`` with another of its kind, ``state_dict`` to store and send.

    Args:
        width: features of an input.
        dtype: float32 or float64, in which is summed whatever the input's own dtype.
        device: where the sums lie; inputs must lie there too.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]  # the attributes that hold tensors

    def __init__(self, width: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"):
        if dtype not in (torch.float32, torch.float64):
            raise BadInput(f"statistics in {dtype}: sums are kept in float32 or float64")
        self.width, self.dtype, self.device = width, dtype, torch.device(device)
        self.tokens = 0
        self.sequences = 0

    def update(self, x: Tensor, mask: Tensor | None = None, sequences: int | None = None) -> None:
        """Add an input ``[..., width]``.

        Args:
            x: any floating dtype.
            mask: boolean, of the shape before the features or flat; False leaves a token out.
            sequences: how many sequences ``x`` holds. By default its first dimension where it has at least three, and one
                per row where it has two; of masked input those with at least one token.

        Raises:
            BadInput: the width or the mask does not fit.
        """
        if x.dim() < 1 or x.shape[-1] != self.width:
            raise BadInput(f"an input of shape {tuple(x.shape)} has not the {self.width} features measured before")
        lead = x.shape[:-1]
        rows = x.detach().reshape(-1, self.width)
        if mask is not None:
            if mask.numel() != rows.shape[0]:
                raise BadInput(f"a token mask of shape {tuple(mask.shape)} does not fit an input of shape {tuple(x.shape)}")
            mask = mask.reshape(lead)
            rows = rows[mask.reshape(-1)]
        self.sequences += _sequences(lead, mask) if sequences is None else sequences
        self.tokens += rows.shape[0]
        if rows.shape[0]:
            self._add(rows.to(self.dtype))

    def merge(self, other: Accumulator) -> None:
        """Add what ``other`` has seen, as if it had been seen here.

        Raises:
            BadInput: it is of another kind, width or dtype.
        """
        if type(other) is not type(self) or (other.width, other.dtype) != (self.width, self.dtype):
            raise BadInput(f"cannot merge {other!r} into {self!r}")
        if other.tokens:
            self._merge(other)
        self.tokens += other.tokens
        self.sequences += other.sequences

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain data and tensors (not copied)."""
        return {"name": self.name, "width": self.width, "dtype": str(self.dtype).removeprefix("torch."),
                "tokens": self.tokens, "sequences": self.sequences,
                **{part: getattr(self, part) for part in self.parts}}  # fmt: skip

    @staticmethod
    def from_state_dict(state: Mapping[str, Any]) -> Accumulator:
        """The accumulator of :meth:`state_dict`, with tensors of its own."""
        kind = find_accumulator(state["name"])
        made = kind(state["width"], getattr(torch, state["dtype"]), state[kind.parts[0]].device)
        made.tokens, made.sequences = int(state["tokens"]), int(state["sequences"])
        for part in kind.parts:
            setattr(made, part, state[part].clone())
        return made

    def finite(self) -> bool:
        """Whether no NaN and no infinity has come in, nor out of adding up."""
        return all(bool(torch.isfinite(getattr(self, part)).all()) for part in self.parts)

    def _count(self, per: str) -> int:
        counts = {"token": self.tokens, "sequence": self.sequences}
        if per not in counts:
            raise BadInput(f"per={per!r}: a mean is per 'token' or per 'sequence'{near(per, counts)}")
        return max(counts[per], 1)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def _add(self, rows: Tensor) -> None:
        raise NotImplementedError

    def _merge(self, other: Any) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.width} features, {self.tokens} tokens, {self.dtype})"


def _sequences(lead: torch.Size, mask: Tensor | None) -> int:
    """Sequences of a batch whose tokens are laid out as ``lead``."""
    if mask is not None:
        return int(mask.reshape(lead[0], -1).any(1).sum()) if lead else int(mask)
    return lead[0] if lead else 1


class Norms(Accumulator):
    """``sum of x_j^2`` over tokens, ``[width]``: the squared norms of the input's columns (Sun et al. 2023, Wanda)."""

    name = "norms"
    parts = ("squares",)

    def __init__(self, width: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"):
        super().__init__(width, dtype, device)
        self.squares = self._zeros(width)

    @property
    def norms(self) -> Tensor:
        """``||x_j||_2`` over all tokens, ``[width]``."""
        return self.squares.sqrt()

    def mean(self, per: str = "token") -> Tensor:
        """``sum of x_j^2`` divided by the number of tokens or sequences; zeros where nothing was seen."""
        return self.squares / self._count(per)

    def _add(self, rows: Tensor) -> None:
        self.squares += rows.square().sum(0)

    def _merge(self, other: Norms) -> None:
        self.squares += other.squares.to(self.device)


class Gram(Accumulator):
    """``X^T X`` over tokens, ``[width, width]``: what layer-wise reconstruction needs (Frantar & Alistarh 2023, SparseGPT).

    Only what lies on and right of the diagonal is summed, in strips; the rest is mirrored when it is asked for.
    """

    name = "gram"
    parts = ("gram",)
    strip: ClassVar[int] = 128  # columns: wide enough for a fast product, narrow enough to save nearly half of it

    def __init__(self, width: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"):
        super().__init__(width, dtype, device)
        self._upper, self._mirrored = self._zeros(width, width), True

    @property
    def gram(self) -> Tensor:
        """``X^T X``, symmetric to the bit."""
        if not self._mirrored:
            for at in range(0, self.width, self.strip):
                corner = self._upper[at : at + self.strip, at : at + self.strip]
                corner.copy_(corner.triu() + corner.triu(1).T)
                self._upper[at + self.strip :, at : at + self.strip] = self._upper[at : at + self.strip, at + self.strip :].T
            self._mirrored = True
        return self._upper

    @gram.setter
    def gram(self, value: Tensor) -> None:
        """Take a symmetric matrix as the sums so far."""
        self._upper, self._mirrored = value, True

    @property
    def squares(self) -> Tensor:
        """The diagonal, ``sum of x_j^2``, ``[width]``."""
        return self._upper.diagonal()

    def mean(self, per: str = "token") -> Tensor:
        """``X^T X`` divided by the number of tokens or sequences; zeros where nothing was seen."""
        return self.gram / self._count(per)

    def _add(self, rows: Tensor) -> None:
        for at in range(0, self.width, self.strip):
            self._upper[at : at + self.strip, at:].addmm_(rows[:, at : at + self.strip].T, rows[:, at:])
        self._mirrored = False

    def _merge(self, other: Gram) -> None:
        self.gram.add_(other.gram.to(self.device))


class Moments(Accumulator):
    """Mean and sum of squared deviations of every feature, merged in pairs (Chan, Golub & LeVeque 1979): no cancellation."""

    name = "moments"
    parts = ("mean", "deviations")

    def __init__(self, width: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"):
        super().__init__(width, dtype, device)
        self.mean = self._zeros(width)
        self.deviations = self._zeros(width)

    def variance(self, unbiased: bool = False) -> Tensor:
        """Variance over tokens, ``[width]``; divided by tokens - 1 where ``unbiased``. Zeros where too little was seen."""
        return self.deviations / max(self.tokens - (1 if unbiased else 0), 1)

    def _add(self, rows: Tensor) -> None:
        mean = rows.mean(0)
        self._join(mean, (rows - mean).square().sum(0), rows.shape[0], self.tokens - rows.shape[0])

    def _merge(self, other: Moments) -> None:
        self._join(other.mean.to(self.device), other.deviations.to(self.device), other.tokens, self.tokens)

    def _join(self, mean: Tensor, deviations: Tensor, n: int, before: int) -> None:
        gap = mean - self.mean
        self.mean += gap * (n / (before + n))
        self.deviations += deviations + gap.square() * (before * n / (before + n))


ACCUMULATORS: dict[str, type[Accumulator]] = {kind.name: kind for kind in (Norms, Gram, Moments)}


def find_accumulator(name: str) -> type[Accumulator]:
    """The accumulator called ``name``; :class:`BadInput` lists the known ones."""
    if name not in ACCUMULATORS:
        raise BadInput(f"statistic {name!r} is unknown; use {', '.join(ACCUMULATORS)}" + near(name, ACCUMULATORS))
    return ACCUMULATORS[name]
