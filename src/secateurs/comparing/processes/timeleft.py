"""How long all that is left of a comparison takes, from the steps made so far."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["TimeLeft"]


class TimeLeft:
    """An estimate. A step is as long as one of the same task was; of a task without any, as all were."""

    def __init__(self, steps: Mapping[str, int], tasks: Mapping[str, str], jobs: int):
        """``steps`` and ``tasks`` by the name of the run; ``jobs`` runs at a time."""
        self._left, self._task, self._jobs = dict(steps), tasks, jobs
        self._last: dict[str, tuple[float, int]] = {}
        self._spent: dict[str, tuple[float, int]] = {}  # seconds and steps by task

    def tell(self, name: str, step: int, steps: int, now: float) -> None:
        """Run ``name`` was at ``step`` of ``steps`` at the time ``now`` (seconds of any clock)."""
        task = self._task[name]
        if name in self._last:  # the first report is where a run goes on from, and includes loading
            then, before = self._last[name]
            seconds, made = self._spent.get(task, (0.0, 0))
            self._spent[task] = (seconds + now - then, made + step - before)
        self._last[name] = (now, step)
        self._left[name] = steps - step

    def done(self, name: str) -> None:
        """Run ``name`` is over."""
        self._left.pop(name, None)

    def seconds(self) -> float | None:
        """Until everything is done, ``jobs`` runs at a time; None before anything can be said."""
        pace = {task: seconds / made for task, (seconds, made) in self._spent.items() if made}
        if not pace:
            return None
        usual = sum(pace.values()) / len(pace)
        left = sum(steps * pace.get(self._task[name], usual) for name, steps in self._left.items())
        return left / max(1, min(self._jobs, len(self._left)))
