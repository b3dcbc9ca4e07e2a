"""The flags that several commands share, each with its words of help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AMOUNT = "How much, and how it is chosen"
SELECTION = "What is pruned"
CALIBRATION = "Calibration and text"
OUTPUT = "Output"

_words = {"rich_help_panel": AMOUNT, "show_default": False}
_which = {"rich_help_panel": SELECTION, "show_default": False}
_text = {"rich_help_panel": CALIBRATION, "show_default": False}
_cut = {"rich_help_panel": CALIBRATION}
_where = {"rich_help_panel": OUTPUT}
Texts = list[str] | None

_MODEL = "A Hugging Face folder, a Secateurs folder, or a .safetensors file with --factory."
_OR_ONNX = "A Hugging Face folder, a Secateurs folder, a .safetensors file with --factory, or an .onnx file."
_SAVED = "A folder that secateurs or save_pretrained wrote; for --format onnx any MODEL."
_BEFORE = "The model before pruning: compare outputs with it under the plan."
_FACTORY = "Builds the network of a plain module; found in the current folder too."
_FORMAT = "secateurs (sparse storage), huggingface (dense, for from_pretrained) or onnx (one file)."
_FORMAT_OF = "secateurs (sparse storage), huggingface (dense, for from_pretrained) or, where whole structures went, onnx. If " \
             "nothing is said the first, with --memory the second."  # fmt: skip
_MEMORY = "Hold no more than this (2GB, 512MB) in memory: a Hugging Face folder, pruned in its files. Measured."
_HOLD = "Hold no more than this (2GB, 512MB) in memory: a Hugging Face folder, read a block at a time. Measured."
_EXEMPT = "A named rule: first-conv, depthwise, gmp, last-linear, embedding. Repeatable."
_ALLOCATION = "uniform, uniform-plus, per-row, global, global-floor, er, erk, erk-plus, snip, grasp, lamp, owl, " \
              "ecoflap, explicit (--override) or a .json file."  # fmt: skip
_SOURCE = "Text to calibrate on: a .txt, .jsonl or .parquet file, or the name of a dataset."
_CALIBRATION = "What the model reads: text (.txt, .jsonl), a folder of images or .wav files, any of them in a .parquet, " \
               "ready inputs (.safetensors, .npz), or the name of a dataset."  # fmt: skip
_COLUMN = "Of a .jsonl or .parquet file or a dataset; text, image or audio if nothing is said."
_JUDGED = _SOURCE.replace("calibrate", "measure")
_TASKS = "Instead: tasks of lm-evaluation-harness (extra eval), by name or as .yaml files, commas in between."
_PERPLEXITY = "Text to measure perplexity on, before and after; the calibration windows if not given."
_BLOCKS = "Names of the lists of repeated layers, or of blocks, where they are not found. Repeatable."
_COMPUTE = "Run the calibration data in this dtype instead of the model's: faster where the processor can."
_JOBS = "Runs at a time, each in a process of its own; 1 if nothing is said."
_RAY = "Instead, run on the Ray cluster at this address; local starts one here."
_RESULTS_OUT = "The folder for results, weights and masks; results/NAME if nothing is said."
_REPORT_OUT = "The folder to write; report/ beside the results if nothing is said."

_GROWN = "A .csv or .jsonl file: parameters, tokens, loss; of sparse runs also average_density and density."
_STRUCTURE = "element, 2:4 (2 kept of 4), block:4x4, rows; channels, heads, neurons, ... (commas between) make tensors smaller."
_INPUT = "Shape of an input, as 1x3x32x32, 1x16:int64 or name=1x16:int64; for models of transformers not needed. Repeatable."
_PLAN_OUT = "A folder for the plan; none is written if nothing is said."
_ROUND = "Round what a group keeps down to a multiple."

Model = Annotated[Path, typer.Argument(metavar="MODEL", help=_MODEL, show_default=False)]
AnyModel = Annotated[Path, typer.Argument(metavar="MODEL", help=_OR_ONNX, show_default=False)]
Saved = Annotated[Path, typer.Argument(metavar="MODEL", help=_SAVED, show_default=False)]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that secateurs wrote.", show_default=False)]
Before = Annotated[Path | None, typer.Option("--dense", metavar="MODEL", help=_BEFORE, show_default=False)]
Factory = Annotated[str | None, typer.Option(metavar="MODULE:FUNCTION", help=_FACTORY, show_default=False)]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run the Python code that lies in a Hugging Face folder.")]
RecipeFile = Annotated[Path | None, typer.Option(metavar="YAML", help="A recipe; flags override it.", show_default=False)]

Method = Annotated[str | None, typer.Option(help="See secateurs methods; magnitude if no recipe says.", **_words)]
Sparsity = Annotated[float | None, typer.Option(metavar="SHARE", help="Share of the selected weights to remove.", **_words)]
Keep = Annotated[str | None, typer.Option(metavar="SHARE|N", help="Instead: the share or number (2000) to keep.", **_words)]
Total = Annotated[float | None, typer.Option(metavar="SHARE", help="Instead: share of all parameters to be zero.", **_words)]
Structure = Annotated[str | None, typer.Option(help=_STRUCTURE, **_words)]
Criterion = Annotated[str | None, typer.Option(help="magnitude, random, wanda, gblm, ...", **_words)]
Allocation = Annotated[str | None, typer.Option(help=_ALLOCATION, **_words)]
AllocationOptions = Annotated[Texts, typer.Option(metavar="KEY=VALUE", help="Of the allocation. Repeatable.", **_words)]
Options = Annotated[Texts, typer.Option("--option", metavar="KEY=VALUE", help="Of the method. Repeatable.", **_words)]
Ratio = Annotated[float | None, typer.Option(metavar="SHARE", help="Share of channels, heads, ... to remove.", **_words)]
Flops = Annotated[str | None, typer.Option(metavar="SHARE|N", help="Instead: multiply-adds left.", **_words)]
Params = Annotated[str | None, typer.Option(metavar="SHARE|N", help="Instead: parameters left.", **_words)]
Bytes = Annotated[str | None, typer.Option(metavar="SHARE|10MB", help="Instead: bytes left.", **_words)]
LatencyLeft = Annotated[str | None, typer.Option("--latency", metavar="SHARE|3ms", help="Instead: time left.", **_words)]
Scope = Annotated[str | None, typer.Option(help="local (if nothing is said), isomorphic, kind, global, knapsack.", **_words)]
Recovery = Annotated[str | None, typer.Option(help="none, norms, or reconstruct; needs --calibration.", **_words)]
RoundTo = Annotated[int | None, typer.Option(min=1, metavar="N", help=_ROUND, **_words)]
Inputs = Annotated[Texts, typer.Option("--input", metavar="SHAPE", help=_INPUT, **_which)]
Ratios = Annotated[list[float] | None, typer.Option("--ratio", help="Share removed to try. Repeatable.", **_words)]
Structures = Annotated[Texts, typer.Option("--structure", help="channels, heads, ...; all if not given. Repeatable.", **_words)]
PlanOut = Annotated[Path | None, typer.Option("--out", metavar="DIR", help=_PLAN_OUT, show_default=False, **_where)]
Seed = Annotated[int | None, typer.Option(help="Seed of random choices.", **_words)]

Include = Annotated[Texts, typer.Option(metavar="GLOB", help="Only these parameters or modules. Repeatable.", **_which)]
Exclude = Annotated[Texts, typer.Option(metavar="GLOB", help="Not these. Repeatable.", **_which)]
Types = Annotated[Texts, typer.Option("--type", metavar="KIND", help="Only linear, conv, embedding, ... Repeatable.", **_which)]
Exempt = Annotated[Texts, typer.Option(metavar="RULE", help=_EXEMPT, **_which)]
Overrides = Annotated[Texts, typer.Option("--override", metavar="GLOB=SHARE", help="Their own sparsity. Repeatable.", **_which)]

Calibration = Annotated[str | None, typer.Option(metavar="DATA", help=_CALIBRATION, **_text)]
Samples = Annotated[int, typer.Option(min=1, help="Windows of text, cut at random places, or samples of other data.", **_cut)]
Length = Annotated[int | None, typer.Option(min=2, help="Tokens of a window; 2048, or what the model can take.", **_text)]
Column = Annotated[str, typer.Option(help="Of a .jsonl or .parquet file or a dataset.", **_cut)]
AnyColumn = Annotated[str | None, typer.Option("--column", "--text-column", help=_COLUMN, **_text)]
PerplexityText = Annotated[str | None, typer.Option("--perplexity", metavar="TEXT", help=_PERPLEXITY, **_text)]
Windows = Annotated[int | None, typer.Option(min=1, help="At most so many windows of it; all if not given.", **_text)]
Dense = Annotated[bool, typer.Option("--dense-inputs", help="Feed every block by the dense ones before it.", **_text)]
Compute = Annotated[str | None, typer.Option(metavar="bfloat16", help=_COMPUTE, **_text)]
Blocks = Annotated[Texts, typer.Option("--blocks", metavar="MODULE", help=_BLOCKS, **_text)]
OnlyBlocks = Annotated[str | None, typer.Option(metavar="FROM:TO", help="Only these of them, as 4:20.", **_text)]
Quantize = Annotated[str | None, typer.Option(metavar="int4|int8", help="sparsegpt: round what stays, jointly.", **_words)]
Judged = Annotated[str | None, typer.Option("--perplexity", metavar="TEXT", help=_JUDGED, **_text)]
Tasks = Annotated[str | None, typer.Option(metavar="TASK,...", help=_TASKS, **_text)]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many samples of every task.", **_text)]

OutDir = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.", **_where)]
Out = Annotated[Path, typer.Option(metavar="PATH", help="The folder to write; of ONNX the .onnx file.", **_where)]
Format = Annotated[str, typer.Option(help=_FORMAT, **_where)]
FormatOf = Annotated[str | None, typer.Option("--format", help=_FORMAT_OF, show_default=False, **_where)]
MemoryToMeasure = Annotated[str | None, typer.Option("--memory", metavar="BYTES", help=_HOLD, show_default=False, **_where)]
Memory = Annotated[str | None, typer.Option(metavar="BYTES", help=_MEMORY, show_default=False, **_where)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a model saved at --out.", **_where)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.", **_where)]
Seeds = Annotated[int, typer.Option(min=1, help="Repetitions with different random starts.", **_where)]
Quick = Annotated[bool, typer.Option("--quick", help="A few steps: shows that it runs, not what it is worth.", **_where)]

ComparisonFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A comparison as YAML.", show_default=False)]
Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="A results.jsonl, or the folder of one.", show_default=False)]
Study = Annotated[Path, typer.Argument(metavar="RECIPE", help="A study as YAML.", show_default=False)]
Grown = Annotated[Path, typer.Argument(metavar="RESULTS", help=_GROWN, show_default=False)]
ResultsOut = Annotated[Path | None, typer.Option("--out", metavar="DIR", help=_RESULTS_OUT, show_default=False, **_where)]
ReportOut = Annotated[Path | None, typer.Option("--out", metavar="DIR", help=_REPORT_OUT, show_default=False, **_where)]
Jobs = Annotated[int | None, typer.Option(min=1, metavar="N", help=_JOBS, show_default=False)]
Ray = Annotated[str | None, typer.Option(metavar="ADDRESS", help=_RAY, show_default=False)]
List = Annotated[bool, typer.Option("--list", help="Say what would be run, and run nothing.")]


def selection(include: Texts, exclude: Texts, types: Texts, exempt: Texts) -> dict[str, tuple[str, ...]]:
    """The four flags that choose what is pruned, as fields of a recipe."""
    named = {"include": include, "exclude": exclude, "types": types, "exempt": exempt}
    return {name: tuple(given or ()) for name, given in named.items()}
