"""``secateurs export``: a saved model in another format, with the files beside it."""

from __future__ import annotations

from secateurs.cli.opening import Source
from secateurs.cli.proving import as_data, as_facts, verify_written
from secateurs.cli.showing import dump, facts, stages
from secateurs.cli.writing import ONNX, Target, read_beside
from secateurs.errors import BadInput
from secateurs.formats import save

__all__ = ["export_folder"]


def export_folder(source: Source, target: Target, as_json: bool) -> bool:
    """Write the model of ``source`` as ``target``; whether it reloads to the same."""
    target.check(ONNX)
    if not source.path.is_dir():
        raise BadInput(f"{str(source.path)!r} is not a folder: export takes one that secateurs or save_pretrained wrote; "
                       "--format onnx takes any MODEL")  # fmt: skip
    with stages(3) as at:
        at.begin("opening")
        opened = source.open()
        beside, report = read_beside(source.path)
        at.begin("writing")
        sides = {"recipe": beside.recipe, "plan": beside, "report": report}
        save(opened.model, target.path, **sides, format=target.format, overwrite=target.overwrite)
        at.begin("verifying")
        proof = verify_written(opened, beside.plan, target.path, source.trust_remote_code)
    if as_json:
        dump({"out": str(target.path), "format": target.format, "verified": as_data(proof)})
    else:
        facts({"written": f"{target.path} ({', '.join(sorted(f.name for f in target.path.iterdir()))})", **as_facts(proof)})
    return proof.ok
