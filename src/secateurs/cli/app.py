"""The commands. Each imports what it needs when it runs, so ``--help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateurs.cli import flags
from secateurs.cli.failing import WORDS, Command
from secateurs.cli.ranks import Together
from secateurs.version import __version__

__all__ = ["app"]

KEPT, FAILED, BROKEN = 0, 1, 3

app = typer.Typer(
    help="Prune PyTorch models, and prove it.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 3 done but a promise was not kept.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
study = typer.Typer(help="Controlled studies of what pruning rests on.", no_args_is_help=True)
app.add_typer(study, name="study")


def _version(asked: bool) -> None:
    if asked:
        print(f"secateurs {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback()
def _before(version: Version = False, debug: Debug = False) -> None:
    """Flags that stand before the command."""


@app.command(cls=Command)
def methods(json: flags.Json = False) -> None:
    """List the pruning methods: what each removes, when, what it needs, its paper."""
    from secateurs.cli.listing import list_methods

    list_methods(json)


@app.command(cls=Command)
def inspect(
    model: flags.Model, factory: flags.Factory = None, include: flags.Include = None, exclude: flags.Exclude = None,
    types: flags.Types = None, exempt: flags.Exempt = None, trust_remote_code: flags.Trust = False, json: flags.Json = False,
) -> None:  # fmt: skip
    """Show a model's layers, what would be pruned, why the rest would not, and its sparsity now."""
    from secateurs.cli.inspecting import inspect_model
    from secateurs.cli.opening import Source

    inspect_model(Source(model, factory, trust_remote_code), flags.selection(include, exclude, types, exempt), json)


@app.command(cls=Together)
def prune(
    context: typer.Context,
    model: flags.AnyModel,
    *,
    recipe: flags.RecipeFile = None,
    method: flags.Method = None,
    sparsity: flags.Sparsity = None,
    keep: flags.Keep = None,
    total_sparsity: flags.Total = None,
    ratio: flags.Ratio = None,
    flops: flags.Flops = None,
    params: flags.Params = None,
    bytes: flags.Bytes = None,
    latency: flags.LatencyLeft = None,
    structure: flags.Structure = None,
    criterion: flags.Criterion = None,
    allocation: flags.Allocation = None,
    allocation_option: flags.AllocationOptions = None,
    scope: flags.Scope = None,
    round_to: flags.RoundTo = None,
    recovery: flags.Recovery = None,
    option: flags.Options = None,
    quantize: flags.Quantize = None,
    seed: flags.Seed = None,
    include: flags.Include = None,
    exclude: flags.Exclude = None,
    types: flags.Types = None,
    exempt: flags.Exempt = None,
    input: flags.Inputs = None,
    override: flags.Overrides = None,
    calibration: flags.Calibration = None,
    samples: flags.Samples = 128,
    length: flags.Length = None,
    column: flags.AnyColumn = None,
    perplexity: flags.PerplexityText = None,
    windows: flags.Windows = None,
    dense_inputs: flags.Dense = False,
    compute: flags.Compute = None,
    blocks: flags.Blocks = None,
    only_blocks: flags.OnlyBlocks = None,
    factory: flags.Factory = None,
    trust_remote_code: flags.Trust = False,
    memory: flags.Memory = None,
    out: flags.Out,
    format: flags.FormatOf = None,
    overwrite: flags.Overwrite = False,
    json: flags.Json = False,
) -> None:
    """Prune a model in one shot, and write it to a new folder with its plan, recipe and report.

    Whole structures (--structure channels --flops 0.5) leave the tensors smaller; other methods leave zeros. An ONNX file is
    pruned to an ONNX file.

    Methods that need calibration read what the model reads, and go block by block; one that was killed goes on when the same
    command is given again. The result is verified: exact counts, zeros where planned, equal after reloading. Exit code 3 if
    that fails, or if more than --memory was used.
    """
    from secateurs.cli.calibrating import Calibrated
    from secateurs.cli.choices import amount, budget, pairs, said, words
    from secateurs.cli.onnx_file import is_onnx, prune_file
    from secateurs.cli.opening import Source
    from secateurs.cli.planning import prune_structures
    from secateurs.cli.pruning import prune_model
    from secateurs.cli.streaming import prune_in_files
    from secateurs.cli.writing import Target

    fields = {
        "method": method, "sparsity": sparsity, "keep": amount(keep), "total_sparsity": total_sparsity, **words(structure),
        "ratio": ratio, "flops": budget(flops), "params": budget(params), "bytes": budget(bytes), "latency": budget(latency),
        "scope": scope, "round_to": round_to, "recovery": recovery,
        "criterion": criterion, "allocation": allocation, "allocation_options": pairs("--allocation-option", allocation_option),
        "options": pairs("--option", [*(option or ()), *([f"quantize={quantize}"] if quantize else ())]),
        "overrides": pairs("--override", override), "seed": seed,
        **flags.selection(include, exclude, types, exempt),
    }  # fmt: skip
    walk = {"blocks": tuple(blocks or ()), "only_blocks": only_blocks, "propagate": "dense" if dense_inputs else "pruned",
            "compute": compute}  # fmt: skip
    text = Calibrated(calibration, samples, length, column, perplexity, windows, walk)
    source = Source(model, factory, trust_remote_code)
    target = Target(out, format or ("huggingface" if memory else "secateurs"), overwrite)
    settled = said(recipe, fields)
    if is_onnx(model):
        odd = {"--factory": factory, "--calibration": calibration, "--perplexity": perplexity, "--memory": memory,
               "--format": None if format == "onnx" else format}  # fmt: skip
        raise typer.Exit(KEPT if prune_file(model, settled, input or (), out, overwrite, json, odd) else BROKEN)
    if memory:
        kept = prune_in_files(source, settled, target, text, memory, json, context.meta[WORDS])
    elif settled.structures:
        kept = prune_structures(source, settled, input or (), target, text, json)
    else:
        kept = prune_model(source, settled, target, text, json, context.meta[WORDS])
    raise typer.Exit(KEPT if kept else BROKEN)


@app.command(cls=Command)
def plan(
    model: flags.AnyModel, *, method: flags.Method = None, structure: flags.Structure = None, criterion: flags.Criterion = None,
    ratio: flags.Ratio = None, flops: flags.Flops = None, params: flags.Params = None, bytes: flags.Bytes = None,
    latency: flags.LatencyLeft = None, scope: flags.Scope = None, round_to: flags.RoundTo = None, seed: flags.Seed = None,
    include: flags.Include = None, exclude: flags.Exclude = None, input: flags.Inputs = None, recipe: flags.RecipeFile = None,
    factory: flags.Factory = None, trust_remote_code: flags.Trust = False, out: flags.PlanOut = None, json: flags.Json = False,
) -> None:  # fmt: skip
    """Show which channels, heads, ... pruning would remove, what that saves, and what is frozen and why. Changes nothing."""
    from secateurs.cli.choices import budget, said, words
    from secateurs.cli.onnx_file import is_onnx, plan_file
    from secateurs.cli.opening import Source
    from secateurs.cli.planning import plan_model

    fields = {
        "method": method, "criterion": criterion, **words(structure), "ratio": ratio, "flops": budget(flops),
        "params": budget(params), "bytes": budget(bytes), "latency": budget(latency), "scope": scope, "round_to": round_to,
        "seed": seed, "include": tuple(include or ()), "exclude": tuple(exclude or ()),
    }  # fmt: skip
    if is_onnx(model):
        plan_file(model, said(recipe, fields), input or (), out, json, {"--factory": factory})
    else:
        plan_model(Source(model, factory, trust_remote_code), said(recipe, fields), input or (), out, json)


@app.command(cls=Command)
def advise(
    model: flags.Model, structure: flags.Structures = None, ratio: flags.Ratios = None, input: flags.Inputs = None,
    factory: flags.Factory = None, trust_remote_code: flags.Trust = False, json: flags.Json = False,
) -> None:  # fmt: skip
    """Measure on this machine, layer by layer and whole, what removing structures would gain in time."""
    from secateurs.cli.advising import advise_model
    from secateurs.cli.opening import Source

    advise_model(Source(model, factory, trust_remote_code), input or (), structure or (), ratio or (), json)


@app.command(cls=Command)
def evaluate(
    model: flags.Model, *, perplexity: flags.Judged = None, tasks: flags.Tasks = None, limit: flags.Limit = None,
    length: flags.Length = None, windows: flags.Windows = None,
    text_column: flags.Column = "text", factory: flags.Factory = None, trust_remote_code: flags.Trust = False,
    memory: flags.MemoryToMeasure = None, json: flags.Json = False,
) -> None:  # fmt: skip
    """Measure a language model: perplexity on a text, and by which convention, or tasks of lm-evaluation-harness.

    Exit code 3 if --memory was exceeded.
    """
    from secateurs.cli.choices import one_of
    from secateurs.cli.evaluating import evaluate_model
    from secateurs.cli.harness_tasks import evaluate_tasks
    from secateurs.cli.opening import Source

    source = Source(model, factory, trust_remote_code)
    kept = True
    if one_of(perplexity=perplexity, tasks=tasks) == "perplexity":
        kept = evaluate_model(source, str(perplexity), length, text_column, windows, json, memory)
    else:
        evaluate_tasks(source, str(tasks), limit, json)
    raise typer.Exit(KEPT if kept else BROKEN)


@app.command(cls=Command)
def verify(
    folder: flags.Folder, dense: flags.Before = None, input: flags.Inputs = None, factory: flags.Factory = None,
    trust_remote_code: flags.Trust = False, json: flags.Json = False,
) -> None:  # fmt: skip
    """Check a saved folder: whole files, planned entries zero, exact counts; with --dense, equal outputs under the plan.

    Exit code 3 if a promise is broken.
    """
    from secateurs.cli.opening import Source
    from secateurs.cli.proving import verify_folder

    before = None if dense is None else Source(dense, factory, trust_remote_code)
    kept = verify_folder(Source(folder, factory, trust_remote_code), json, before, input or ())
    raise typer.Exit(KEPT if kept else BROKEN)


@app.command(cls=Command)
def export(
    folder: flags.Saved, out: flags.Out, format: flags.Format = "huggingface", input: flags.Inputs = None,
    factory: flags.Factory = None, trust_remote_code: flags.Trust = False, overwrite: flags.Overwrite = False,
    json: flags.Json = False,
) -> None:  # fmt: skip
    """Write a saved model in another format: an ordinary Hugging Face folder, or with --format onnx an ONNX file.

    The ONNX file takes inputs of the sizes of --input, and is written once onnxruntime has given the model's outputs.
    """
    from secateurs.cli.exporting import export_folder
    from secateurs.cli.onnx_file import export_file
    from secateurs.cli.opening import Source
    from secateurs.cli.writing import Target

    if format == "onnx":
        raise typer.Exit(KEPT if export_file(Source(folder, factory, trust_remote_code), input or (), out, overwrite, json)
                         else BROKEN)  # fmt: skip
    kept = export_folder(Source(folder, factory, trust_remote_code), Target(out, format, overwrite), json)
    raise typer.Exit(KEPT if kept else BROKEN)


@app.command(cls=Command)
def demo(out: flags.OutDir = Path("demo-out"), seeds: flags.Seeds = 3, quick: flags.Quick = False) -> None:
    """Train, prune and compare with small dense networks of the same bytes, on handwritten digits (minutes)."""
    from secateurs.demo import run

    raise typer.Exit(run(out, seeds=seeds, quick=quick))


@app.command(cls=Command)
def compare(
    recipe: flags.ComparisonFile, out: flags.ResultsOut = None, jobs: flags.Jobs = None, ray: flags.Ray = None,
    list: flags.List = False, json: flags.Json = False,
) -> None:  # fmt: skip
    """Run every method of a recipe on every task, at every sparsity, with every seed; killed, the same command goes on.

    Exit code 1 if a run failed; the others are finished and kept, and the next call tries it again.
    """
    from secateurs.cli.comparing import compare_recipe, list_runs

    if list:
        list_runs(recipe, out, json)
    elif not compare_recipe(recipe, out, jobs, ray, json):
        raise typer.Exit(FAILED)


@app.command(cls=Command)
def report(results: flags.Results, out: flags.ReportOut = None, json: flags.Json = False) -> None:
    """Write a page, pictures and tables from the results of a comparison. Runs nothing that they name."""
    from secateurs.cli import reporting

    reporting.report(results, out, json)


@study.command(cls=Command)
def oracle(
    recipe: flags.Study, out: flags.OutDir = Path("oracle-out"), jobs: flags.Jobs = None, json: flags.Json = False
) -> None:
    """Do the filters whose removal costs least loss give the best model after retraining? Retrains many sets to see.

    Exit code 1 if a retraining failed; the others are finished and kept, and the next call tries it again.
    """
    from secateurs.cli import studying

    if not studying.oracle(recipe, out, jobs or 1, json):
        raise typer.Exit(FAILED)


@study.command(cls=Command)
def scaling(results: flags.Grown, out: flags.Out = Path("scaling-out"), json: flags.Json = False) -> None:
    """Fit a scaling law to the dense runs of a table and predict its sparse runs, by their size averaged over training."""
    from secateurs.cli import studying

    studying.scaling(results, out, json)
