"""Sums of single samples' gradients: ``|g|``, ``g^2`` and ``g``, taken while the backward pass runs.

A mean of gradients tells little of a trained network, where they nearly cancel; the sum of their magnitudes does (Das et al.
2023, GBLM-Pruner). Every parameter's gradient is added up and let go the moment it is complete, so no second one lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateurs.errors import BadInput

__all__ = ["GradientSums", "check_reached", "differentiable", "gradient_sums", "single_samples"]


class GradientSums:
    """Sums over samples of one parameter's gradient, of its shape.

    Attributes:
        samples: gradients added.
        absolute, squared, total: sums of ``|g|``, ``g^2`` and ``g``; None for those not asked for.
    """

    WANTS: ClassVar[tuple[str, ...]] = ("absolute", "squared", "total")

    def __init__(self, shape: torch.Size, wants: Iterable[str] = WANTS, dtype: torch.dtype = torch.float32,
                 device: torch.device | str = "cpu"):  # fmt: skip
        self.samples = 0
        given = set(wants)
        if unknown := given - set(self.WANTS):
            raise BadInput(f"gradient sums {sorted(unknown)}: there are {', '.join(self.WANTS)}")
        made = {name: torch.zeros(shape, dtype=dtype, device=device) if name in given else None for name in self.WANTS}
        self.absolute, self.squared, self.total = made["absolute"], made["squared"], made["total"]

    def update(self, gradient: Tensor, scale: float = 1.0) -> None:
        """Add one sample's gradient times ``scale``, in the dtype of the sums."""
        self.samples += 1
        for name in self.WANTS:
            held = getattr(self, name)
            if held is not None:
                held += _term(name, gradient.detach().to(held.device, held.dtype) * scale)

    def merge(self, other: GradientSums) -> None:
        """Add what ``other`` has seen; :class:`BadInput` if it keeps other sums."""
        for name in self.WANTS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if (mine is None) != (theirs is None) or (mine is not None and mine.shape != theirs.shape):
                raise BadInput(f"cannot merge sums of gradients that differ in {name!r} or in shape")
        self.samples += other.samples
        for name in self.WANTS:
            if getattr(self, name) is not None:
                getattr(self, name).add_(getattr(other, name).to(getattr(self, name).device))

    def state_dict(self) -> dict[str, Any]:
        """The count and the sums that are kept (not copied)."""
        kept = {name: getattr(self, name) for name in self.WANTS if getattr(self, name) is not None}
        return {"samples": self.samples, **kept}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> GradientSums:
        """The sums of :meth:`state_dict`, with tensors of their own."""
        kept = {name: state[name] for name in cls.WANTS if name in state}
        made = cls(next(iter(kept.values())).shape, ())
        made.samples = int(state["samples"])
        for name, value in kept.items():
            setattr(made, name, value.clone())
        return made


def _term(name: str, gradient: Tensor) -> Tensor:
    if name == "absolute":
        return gradient.abs()
    return gradient.square() if name == "squared" else gradient


def gradient_sums(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    samples: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    *,
    wants: Iterable[str] = GradientSums.WANTS,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    seed: int = 0,
    whole: bool = True,
) -> dict[str, GradientSums]:
    """Sums over ``samples`` of d loss(model, sample) / d parameter, by name; one backward pass per sample.

    The model runs in evaluation mode (no dropout) with gradients. Nothing of it changes: its mode, the gradients it holds,
    which parameters want one. ``scale`` multiplies every gradient before it is summed, and keeps what a 16-bit model would
    lose if the loss is scaled as well. Magnitudes depend on the loss's reduction (a mean over tokens shrinks them with the
    length) and on how many examples make a sample: :func:`single_samples` makes it one.

    Args:
        device: where the sums are kept; beside each parameter unless told.
        whole: these are all samples there are. Of a part, some parameters may have no gradient: merge the sums of all parts,
            then :func:`check_reached`.

    Raises:
        BadInput: no sample was given, or the loss of a whole does not depend on one of the parameters.
    """
    wanted = tuple(wants)
    sums = {n: GradientSums(p.shape, wanted, dtype, p.device if device is None else device) for n, p in parameters.items()}
    seen = 0
    with differentiable(model, parameters), ExitStack() as hooks:
        for name, p in parameters.items():
            hooks.callback(p.register_post_accumulate_grad_hook(_adder(sums[name], scale)).remove)
        cuda = sorted({p.device.index for p in parameters.values() if p.device.type == "cuda"})
        with torch.random.fork_rng(cuda), torch.enable_grad():
            torch.manual_seed(seed)
            for sample in samples:
                loss(model, sample).backward()
                seen += 1
    if not seen:
        raise BadInput("calibration gave no batch; pass at least one")
    if whole:
        check_reached(sums)
    return sums


def single_samples(batches: Iterable[Any]) -> Iterator[Any]:
    """The examples of ``batches`` one at a time, each a batch of one: tensors are cut along their first dimension.

    A batch is a tensor, or tensors in a mapping, tuple or list; what is no tensor is handed on as it is.
    """
    for batch in batches:
        tensors = [v for v in _values(batch) if isinstance(v, Tensor) and v.dim()]
        if not tensors:
            raise BadInput(f"a batch of type {type(batch).__name__} holds no tensor to take single examples from")
        sizes = sorted({len(v) for v in tensors})
        if len(sizes) > 1:
            raise BadInput(f"the tensors of a batch have {sizes} examples; give batches of one example instead")
        for i in range(sizes[0]):
            yield _cut(batch, i)


def _values(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return list(batch.values())
    return list(batch) if isinstance(batch, (tuple, list)) else [batch]


def _cut(batch: Any, i: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[i : i + 1] if batch.dim() else batch
    if isinstance(batch, Mapping):
        return {key: _cut(value, i) for key, value in batch.items()}
    return type(batch)(_cut(value, i) for value in batch) if isinstance(batch, (tuple, list)) else batch


def _adder(sums: GradientSums, scale: float) -> Callable[[Tensor], None]:
    def add(parameter: Tensor) -> None:
        if parameter.grad is not None:
            sums.update(parameter.grad, scale)
            parameter.grad = None

    return add


def check_reached(sums: Mapping[str, GradientSums]) -> None:
    """Raise :class:`BadInput`, naming the parameter, where no sample's loss depends on it."""
    for name, one in sums.items():
        if one.samples == 0:
            raise BadInput(f"the loss does not depend on {name!r}, so it has no gradient; exclude it, or give "
                           "batches that use it")  # fmt: skip


@contextmanager
def differentiable(model: nn.Module, parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Evaluation mode, gradients wanted by ``parameters`` alone and held by nobody; afterwards everything as it was."""
    modes = [(module, module.training) for module in model.modules()]
    everyone = {id(p): p for p in (*model.parameters(), *parameters.values())}.values()
    before = [(p, p.requires_grad, p.grad) for p in everyone]
    try:
        model.eval()
        for p, _, _ in before:
            p.requires_grad_(False)
            p.grad = None
        for p in parameters.values():
            p.requires_grad_(True)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for p, wanted, gradient in before:
            p.requires_grad_(wanted)
            p.grad = gradient
