"""Rows of a comparison that nobody ran, with numbers one can check by eye."""

DENSE_STEPS, STEPS, SELECTED, OTHERS = 400, 200, 800, 200
ARMS = {  # protocol, method, how much better than the level of its point
    "magnitude": ("prune", "magnitude", 0.02),
    "gmp": ("prune", "gmp", 0.03),
    "scratch-e of magnitude": ("scratch-e", None, -0.01),
    "small-dense": ("small-dense", None, 0.0),
    "random": ("prune", "random", -0.1),
}
LEVELS = {"80 %": (0.8, 0.90), "90 %": (0.9, 0.85)}


def row(task="digits", arm="dense", point=None, seed=0, **changes):
    """A finished run: 0.95 for the dense model; at a point its level plus the arm's own plus a thousandth per seed."""
    protocol, method, better = ARMS.get(arm, (arm, None, 0.0))
    removed, level = LEVELS.get(point, (None, 0.95))
    kept = SELECTED if removed is None else round(SELECTED * (1 - removed))
    said = {"task": task, "arm": arm, "protocol": protocol, "method": method, "of": None, "point": point, "seed": seed}
    made = {
        "schema": 1, "status": "done", "run": f"{task}-{arm}-{point}-seed{seed}-0123456789".replace(" ", "-"),
        "comparison": "made up", **said, "metric": "top-1", "direction": "higher", "percent": True, "split": "test",
        "tests_on_training_data": False, "value": round(level + better + 0.001 * seed, 6), "history": [], "threads": 1,
        "device": "cpu", "versions": {"python": "3.11.2", "torch": "2.6.0"}, "code": {"model": "abcdef0123"},
        "sparsity": removed if protocol in ("prune", "scratch-e") else None,
        **_training(method, kept, seed, level), **_size(kept, protocol), **_clock(), "determined_by": _settings(said, removed),
    }  # fmt: skip
    return {**made, **changes}


def rows(tasks=("digits", "letters", "signs"), seeds=(0, 1, 2), points=tuple(LEVELS), arms=tuple(ARMS)):
    """A whole grid, in which every difference between arms is the same in every seed."""
    cells = [("dense", None), *((arm, point) for point in points for arm in arms)]
    return [row(task, arm, point, seed) for task in tasks for arm, point in cells for seed in seeds]


def failed(task="digits", arm="gmp", point="90 %", seed=2):
    """A run that ended with an error."""
    error = {"type": "ValueError", "message": "the loss is NaN at step 12\nmore", "traceback": "..."}
    return {**row(task, arm, point, seed), "status": "failed", "error": error}


def _training(method, kept, seed, level):
    """Pruned runs begin with a dense model; all others train for as long from random weights."""
    density = (OTHERS + kept) / (OTHERS + SELECTED)
    common = {"batch": 64, "average_density": density, "training_flops": 1e6}
    if method is None:
        steps = DENSE_STEPS + STEPS
        return {**common, "before": None, "start": None, "steps": steps, "inherited_steps": 0, "cost_steps": steps * density}
    return {**common, "before": level - 0.2, "start": 0.94 + 0.001 * seed, "steps": STEPS, "inherited_steps": DENSE_STEPS,
            "cost_steps": DENSE_STEPS + STEPS * density}  # fmt: skip


def _size(kept, protocol):
    layers = [{"name": "fc1.weight", "size": 600, "kept": kept - kept // 4},
              {"name": "fc2.weight", "size": 200, "kept": kept // 4}]  # fmt: skip
    return {
        "parameters": OTHERS + SELECTED, "nonzero": OTHERS + kept, "selected": SELECTED, "kept": kept, "layers": layers,
        "bytes": 4 * (OTHERS + kept) + (10 if protocol == "small-dense" else 0), "dense_bytes": 4000, "width": None,
        "multiply_adds": 10 * kept, "dense_multiply_adds": 10 * SELECTED, "peak_memory_bytes": 250_000,
    }  # fmt: skip


def _clock():
    return {
        "latency": {"median_s": 0.002, "iqr_s": 0.0002, "dense_median_s": 0.0025, "dense_iqr_s": 0.0002, "batch": 1,
                    "threads": 1, "repeats": 30},
        "seconds": {"training": 3.5, "evaluation": 0.2, "measuring": 0.1, "total": 4.0},
    }  # fmt: skip


def _settings(said, removed):
    task = said["task"]
    return {
        "schema": 1, "seed": said["seed"], "needs": [], "threads": 1, "point": {"sparsity": removed, "compression": None},
        "task": {"name": task, "model": f"{task}:build", "data": f"{task}:load", "steps": STEPS, "batch": 64,
                 "dense": {"steps": DENSE_STEPS}, "optimizer": {"name": "sgd", "lr": 0.1, "rate": "constant"}},
        "arm": {"name": said["arm"], "protocol": said["protocol"]},
    }  # fmt: skip
