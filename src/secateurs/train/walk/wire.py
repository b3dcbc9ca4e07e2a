"""Texts and tensors between processes, over ``torch.distributed``: bytes on any backend, and nothing is pickled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Lost", "broadcast", "empty", "head", "receive", "send", "texts"]


class Lost(RuntimeError):
    """Another process is gone, or does not answer."""


def texts(text: str, size: int) -> list[str]:
    """The text of every one of ``size`` processes."""
    content = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    lengths = [int(n) for n in _gathered(torch.tensor([content.numel()]), size)]
    padded = torch.zeros(max(lengths), dtype=torch.uint8)
    padded[: content.numel()] = content
    return [row[:n].cpu().numpy().tobytes().decode() for row, n in zip(_gathered(padded, size), lengths, strict=True)]


def broadcast(tensor: Tensor, source: int) -> None:
    """Write into ``tensor`` what it holds in the process ``source``."""
    content = _bytes(tensor)
    moved = content.to(_carrier(content))
    if moved.numel():
        with _connected():
            dist.broadcast(moved, source)
    if dist.get_rank() != source:
        tensor.detach().copy_(_typed(moved, head(tensor)))


def head(value: Any) -> Any:
    """What another process must know to receive ``value``; JSON-able data stands for itself."""
    if not isinstance(value, Tensor):
        return value
    return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch."), "bytes": value.nbytes}


def empty(of: Mapping[str, Any], device: torch.device) -> Tensor:
    """A tensor as :func:`head` tells."""
    return torch.empty(of["shape"], dtype=getattr(torch, of["dtype"]), device=device)


def send(state: Mapping[str, Any], to: int) -> None:
    """Send the tensors of a state dict to a process that calls :func:`receive` with their heads."""
    for tensor in (value for value in state.values() if isinstance(value, Tensor)):
        content = _bytes(tensor)
        with _connected():
            dist.send(content.to(_carrier(content)), to)


def receive(heads: Mapping[str, Any], source: int, device: torch.device) -> dict[str, Any]:
    """The state dict that ``source`` sends, on ``device``."""
    state = dict(heads)
    for key, value in heads.items():
        if isinstance(value, dict) and value.keys() == {"shape", "dtype", "bytes"}:
            content = torch.empty(value["bytes"], dtype=torch.uint8, device=device)
            content = content.to(_carrier(content))
            with _connected():
                dist.recv(content, source)
            state[key] = _typed(content.to(device), value)
    return state


def _gathered(tensor: Tensor, size: int) -> list[Tensor]:
    moved = tensor.to(_carrier(tensor))
    found = [torch.empty_like(moved) for _ in range(size)]
    with _connected():
        dist.all_gather(found, moved)
    return found


@contextmanager
def _connected() -> Iterator[None]:
    """Around every transfer: one that fails is the end, and there is nobody to tell."""
    try:
        yield
    except RuntimeError as error:
        raise Lost(f"another process is gone, or does not answer: {error}") from error


def _carrier(tensor: Tensor) -> torch.device:
    """Where the group's backend can take the tensor from: NCCL wants it on the GPU, others on the CPU."""
    backends = str(dist.get_backend_config())
    if "nccl" in backends and (tensor.is_cuda or "gloo" not in backends):
        return tensor.device if tensor.is_cuda else torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _typed(content: Tensor, of: Mapping[str, Any]) -> Tensor:
    return content.view(getattr(torch, of["dtype"])).reshape(of["shape"])
