"""A command that ``torchrun`` has started several times: its processes work together, and the first speaks for all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import Any

import typer
from typer.core import TyperCommand

from secateurs.cli.failing import Command

__all__ = ["Together", "for_all", "leave_to_first", "processes"]

_PATIENCE = timedelta(hours=12)  # while the first one measures or writes; torchrun ends all where one dies


def processes() -> int:
    """How many processes ``torchrun`` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def for_all(batches: list[Any] | None) -> list[Any] | None:
    """The batches, cut into single samples where there are fewer than processes."""
    from secateurs.statistics import single_samples

    return batches if batches is None or len(batches) >= processes() else list(single_samples(batches))


def leave_to_first() -> None:
    """Every process but the first has done its part of the command and ends here."""
    if processes() > 1 and int(os.environ["RANK"]) > 0:
        raise typer.Exit


class _InGroup(TyperCommand):
    """Runs inside a process group where there are several processes."""

    def invoke(self, ctx: Any) -> Any:
        """Run it; an error in one process is the first one's to tell."""
        return super().invoke(ctx) if processes() == 1 else _together(lambda: super(_InGroup, self).invoke(ctx))


class Together(Command, _InGroup):
    """A command of which all processes do a part and the first alone prints, writes and has an exit code."""


def _together(run: Callable[[], Any]) -> Any:
    import torch
    import torch.distributed as dist

    from secateurs.train.walk.parallel import Ranks, is_told

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    ranks = Ranks.of(distributed=True)
    try:
        with ExitStack() as stack:
            if not ranks.first:
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            with ranks:
                try:
                    return run()
                except typer.Exit as left:  # is no failure
                    code = left.exit_code
            raise typer.Exit(code)
    except Exception as error:
        if not ranks.first and is_told(error):  # the first one fails too: torchrun must not end that before it has spoken
            raise typer.Exit from error
        raise
    finally:
        dist.destroy_process_group()
