"""Which tokens of a layer's input are padding, read from the batch's attention masks and the block's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from secateurs.errors import BadInput

__all__ = ["Tokens", "tokens_of"]

_ENCODER_STATES = "encoder_hidden_states"


@dataclass(frozen=True)
class Tokens:
    """The real tokens of one call of a block.

    Attributes:
        own: mask ``[N, S]`` of the block's own hidden states, True = a real token; None where all are.
        other: the mask of the encoder's states, for what reads ``states``.
        states: the storage of the encoder's states, as an address.
        sequences: how many sequences the batch holds.
    """

    own: Tensor | None = None
    other: Tensor | None = None
    states: int = 0
    sequences: int | None = None

    def mask(self, x: Tensor, layer: str) -> Tensor | None:
        """The flat mask over the rows of the layer's input ``[..., features]``; None where every row counts.

        Raises:
            BadInput: there is padding, and the input is not laid out as the tokens are.
        """
        from_encoder = self.states and x.untyped_storage().data_ptr() == self.states
        mask = self.other if from_encoder else self.own
        if mask is None:
            return None
        lead = tuple(x.shape[:-1])
        if lead in (tuple(mask.shape), (mask.numel(),)):
            return mask.reshape(-1)
        if lead == tuple(mask.shape[::-1]):
            return mask.T.reshape(-1)
        raise BadInput(f"{layer!r} gets an input of shape {tuple(x.shape)}, in which the padding of a batch of shape "
                       f"{tuple(mask.shape)} cannot be told: give calibration batches without padding")  # fmt: skip


def tokens_of(batch: Any, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tokens:
    """The tokens of a block called with these arguments, inside a model called with ``batch``.

    A mapping's ``attention_mask`` is that of the tokens (of an encoder-decoder: of the encoder's), ``decoder_attention_mask``
    that of the decoder's; where a decoder has none, labels of -100 tell. A mask of another shape than the block's hidden
    states ``[N, S, features]`` belongs to another part of the model. Left and right padding are the same.
    """
    hidden, states = _hidden(args, kwargs), _named(forward, args, kwargs).get(_ENCODER_STATES)
    if hidden is None:
        return Tokens()
    sequences = hidden.shape[0]
    if not isinstance(batch, Mapping):
        return Tokens(sequences=sequences)
    first = batch.get("attention_mask")
    if not isinstance(states, Tensor):
        return Tokens(_fitting(first, hidden), sequences=sequences)
    own = _fitting(_decoder_mask(batch), hidden)
    return Tokens(own, _fitting(first, states), states.untyped_storage().data_ptr(), sequences)


def _named(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return inspect.signature(forward).bind(*args, **kwargs).arguments | dict(kwargs)
    except (TypeError, ValueError):
        return kwargs


def _hidden(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The first floating tensor among the arguments with a batch dimension and features."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2:
            return value
    return None


def _fitting(mask: Any, hidden: Tensor) -> Tensor | None:
    if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.shape != hidden.shape[:2] or hidden.dim() < 3:
        return None
    real = mask.to(hidden.device) > 0
    return None if bool(real.all()) else real


def _decoder_mask(batch: Mapping[str, Any]) -> Tensor | None:
    given = batch.get("decoder_attention_mask")
    labels = batch.get("labels")
    if given is not None or batch.get("decoder_input_ids") is not None or not isinstance(labels, Tensor) or labels.dim() != 2:
        return given
    return labels != -100
