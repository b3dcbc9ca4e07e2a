"""The settings of both sizes: ``short`` (an hour or so for all on two cores) and ``card`` (the paper's own shapes)."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.families.setting import Setting

__all__ = ["CARD_OF", "FAMILIES", "SIZES", "settings"]

_IMAGES = "cifar10, 45,000 training images, flips and shifts by up to 4 pixels"
_RESNET = Setting("cifar", "resnet-56", 16, {"depth": 56}, steps=64_000, batch=128, optimizer="sgd", lr=0.1, momentum=0.9,
                  weight_decay=1e-4, exempt=("gmp",), data=_IMAGES)  # fmt: skip
_MOBILENET = replace(_RESNET, model="mobilenet-1.0", width=1.0, shape={}, weight_decay=4e-5)

_WORDS = "brown, lower-cased, the 10,000 most frequent words"
_LM = Setting("lstm", "lstm-medium", 650, {"words": 10_000, "layers": 2, "unroll": 35, "dropout": 0.5, "init": 0.05},
              steps=39 * 1_600, batch=20, optimizer="sgd", lr=1.0, clip=5.0, decay={"epoch": 1_600, "hold": 6, "factor": 1.2},
              sparsities=(0.8, 0.85, 0.9, 0.95, 0.975), data=_WORDS)  # fmt: skip
_LARGE = replace(_LM, model="lstm-large", width=1500, shape={**_LM.shape, "dropout": 0.65, "init": 0.04}, steps=55 * 1_600,
                 clip=10.0, decay={"epoch": 1_600, "hold": 14, "factor": 1.15})  # fmt: skip

_PAIRS = "multi30k en-de, one subword vocabulary for both sides"
_GNMT = Setting("translation", "translator-1024", 1024, {"words": 4_000, "layers": 4, "dropout": 0.2}, steps=20_000, batch=128,
                optimizer="adam", lr=1e-3, clip=5.0, smoothing=0.1, sparsities=(0.8, 0.85, 0.9),
                orders={"layerwise": (0.8, 0.85, 0.9), "global": (0.8, 0.85, 0.9)}, exclude=("decoder.attention.*",),
                data=_PAIRS)  # fmt: skip

_CARD = (_RESNET, _MOBILENET, _LM, _LARGE, _GNMT)
_SHORT = (
    replace(_RESNET, model="resnet-8", shape={"depth": 8}, steps=600, lr=0.2, weight_decay=5e-4, every=20, bfloat16=True),
    replace(_MOBILENET, model="mobilenet-0.25", width=0.25, steps=350, lr=0.2, weight_decay=1e-4, every=20),
    replace(_LM, model="lstm-small", width=200, shape={**_LM.shape, "unroll": 20, "dropout": 0.0, "init": 0.1},
            steps=2_000, lr=5.0, decay={}, sparsities=(0.8, 0.9, 0.95), every=20, bfloat16=True),
    replace(_GNMT, model="translator-128", width=128, shape={**_GNMT.shape, "layers": 2, "dropout": 0.0}, steps=1_500,
            batch=64, lr=2e-3, smoothing=0.0, sparsities=(0.8, 0.9), every=20, bfloat16=True,
            orders={"layerwise": (0.9,), "global": (0.9,)}),
)  # fmt: skip
SIZES = {"short": _SHORT, "card": _CARD}
CARD_OF = {  # the paper's own setting behind every model
    **{setting.model: setting for setting in _CARD},
    "resnet-8": _RESNET, "mobilenet-0.25": _MOBILENET, "lstm-small": _LM, "translator-128": _GNMT,
}  # fmt: skip
FAMILIES = ("cifar", "lstm", "translation")


def settings(family: str, size: str) -> list[Setting]:
    """The models of a family at a size."""
    return [s for s in SIZES[size] if s.family == family]
