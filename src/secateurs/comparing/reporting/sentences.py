"""What a comparison says, in sentences derived from its numbers, whichever way they point."""

from __future__ import annotations

from secateurs.comparing.reporting.points import Entry, Gathered, Pair, TaskResults, pair
from secateurs.comparing.reporting.words import count, difference, listed, on_seeds, quoted

__all__ = ["findings", "how", "opening"]


def opening(gathered: Gathered) -> str:
    """What was compared on what, and how often."""
    arms = {entry.arm for task in gathered.tasks for entry in task.entries if entry.pruned}
    baselines = {entry.arm for task in gathered.tasks for entry in task.entries if not entry.pruned}
    where = []
    for task in gathered.tasks:
        seeds = {seed for entry in task.entries for seed in entry.seeds}
        where.append(f"{task.name} ({task.metric.title}; {listed(task.labels)}; {count(len(seeds), 'seed')})")
    beside = f" beside {listed(sorted(baselines))}" if baselines else ""
    return f"{count(len(arms), 'method')}{beside} on {listed(where)}: {count(len(gathered.rows), 'run')}."


def findings(task: TaskResults) -> list[str]:
    """A few sentences per operating point: the best mean, what it cannot be told from, and how it stands to the baselines."""
    return [said for point in task.labels if (said := _at(task, point))]


def how(gathered: Gathered) -> list[str]:
    """How it was run: versions, threads, device, hours, and what the numbers are."""
    rows = gathered.rows
    versions = sorted({f"{name} {version}" for row in rows for name, version in (row.get("versions") or {}).items()})
    threads, devices = ({str(row.get(key)) for row in rows} for key in ("threads", "device"))
    total = sum((row.get("seconds") or {}).get("total", 0.0) for row in rows)
    said = [f"{count(len(rows), 'run')} on {listed(sorted(devices))}, threads: {listed(sorted(threads))}; "
            f"{total / 3600:,.2f} hours of runs in all; {listed(versions)}."]  # fmt: skip
    said += [sentence for task in gathered.tasks for sentence in (_task(task), _latency(task)) if sentence]
    said.append("Values are those after the last step, never the best of several evaluations.")
    said.append("A run's name ends in the hash of all that determines it; the runs of a point are named where you touch it.")
    return said


def _at(task: TaskResults, point: str) -> str:
    entries = [entry for entry in task.at(point) if entry.pruned]
    if not entries:
        return ""
    better = max if task.metric.higher_is_better else min
    best = better(entries, key=lambda entry: entry.spread("value").mean)
    quality = f"{task.metric.show(best.spread('value'))}{' %' if task.metric.unit == '%' else ''}"
    extreme = "highest" if task.metric.higher_is_better else "lowest"
    longer = " (trained longer, for equal compute)" if best.role == "scratch-b" else ""
    first = f"At {point}, '{best.arm}'{longer} has the {extreme} mean, {quality}{_beside(task, best, entries)}"
    rivals = [found for role in ("dense", "small-dense", "random") if (found := task.against(best, role))]
    return f"{first}: {_standing(rivals)}." if rivals else f"{first}."


def _beside(task: TaskResults, best: Entry, entries: list[Entry]) -> str:
    """What the best mean cannot be told from; with too few seeds nothing is ranked."""
    found = [match for entry in entries if entry is not best and (match := pair(best, entry, task.metric))]
    if not found:
        return ""
    if all(match.interval is None for match in found):
        return f", but {count(len(best.seeds), 'seed ranks', 'seeds rank')} nothing"
    unclear = [match.theirs.arm for match in found if not match.clear]
    return f" ({quoted(unclear, most=5)} cannot be told apart from it)" if unclear else ", clear of all others"


def _standing(rivals: list[Pair]) -> str:
    """How it stands to the baselines; what the seeds say is said once where it is the same for all."""
    said = [f"{difference(found.metric, found.differences)} to {found.theirs.arm}" for found in rivals]
    agree = all(found.verdict != "mixed" for found in rivals) and len({len(found.seeds) for found in rivals}) == 1
    n = len(rivals[0].seeds)
    if agree and n > 1:
        return f"{listed(said)}, with that sign on every one of {n} seeds"
    return "; ".join(f"{text}, {on_seeds(found)}" for text, found in zip(said, rivals, strict=True))


def _task(task: TaskResults) -> str:
    settings = (task.rows[0].get("determined_by") or {}).get("task") or {}
    if not settings:
        return ""
    dense = f"{settings['dense']['steps']:,} steps of dense training and " if settings.get("dense") else ""
    rate = settings.get("optimizer") or {}
    learning = f"{rate.get('name')} at {rate.get('lr')} ({rate.get('rate')})"
    return (f"{task.name}: {dense}{settings.get('steps', 0):,} steps per run in batches of {settings.get('batch')}, "
            f"{learning}; measured on '{task.rows[0].get('split')}'.")  # fmt: skip


def _latency(task: TaskResults) -> str:
    taken = next((row["latency"] for row in task.rows if row.get("latency")), None)
    return (f"{task.name}: latency of batches of {taken['batch']} on {count(taken['threads'], 'thread')}, the median of "
            f"{taken['repeats']} calls in turns with the dense model.") if taken else ""  # fmt: skip
