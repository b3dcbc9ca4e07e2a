"""For the tests of errors: a refusal quotes what was given and leaves everything as it was."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from secateurs.errors import BadInput


def snapshot(*things: Any) -> list[Any]:
    """Everything of a model, an optimizer and a pruner that a half-done job could have changed."""
    found: list[Any] = []
    for thing in things:
        if isinstance(thing, nn.Module):
            found += [id(p) for p in thing.parameters()] + [type(m) for m in thing.modules()]
            found += [sorted(vars(m)) for m in thing.modules()] + list(thing.state_dict().values())
        elif isinstance(thing, torch.optim.Optimizer):
            found += [len(thing._optimizer_step_post_hooks), len(thing._optimizer_step_pre_hooks), thing.state_dict()]
        else:
            found += [thing.step_count, thing.history, thing.average_density, dict(thing.masks), thing._method.state_dict()]
    return copy.deepcopy(torch.utils._pytree.tree_leaves(found))


@contextlib.contextmanager
def _refused(*things: Any, say: list[str], error: type[Exception] = BadInput) -> Iterator[None]:
    """The block raises ``error`` with all of ``say`` in its message, and ``things`` are as they were."""
    before = snapshot(*things)
    with pytest.raises(error) as caught:
        yield
    for words in say:
        assert words in str(caught.value)
    for a, b in zip(before, snapshot(*things), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) and not torch.isnan(a).any() else str(a) == str(b)


@pytest.fixture(scope="session")
def refused() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """``with refused(model, pruner, say=["..."]):`` the block raises, says so, and changes nothing of what is named."""
    return _refused
