"""What a model costs and what it is worth: parameters, bytes, multiply-adds, latency, memory; accuracy, perplexity, BLEU."""

from secateurs.measure.flops import Flops, LayerFlops, multiply_adds
from secateurs.measure.latency import Latency, compare_latency, latency
from secateurs.measure.memory import peak_memory
from secateurs.measure.quality import accuracy, bleu, bleu_signature, perplexity
from secateurs.measure.size import Sizes, narrowest, paper_bytes, payload_bytes, sizes

__all__ = [
    "Flops",
    "Latency",
    "LayerFlops",
    "Sizes",
    "accuracy",
    "bleu",
    "bleu_signature",
    "compare_latency",
    "latency",
    "multiply_adds",
    "narrowest",
    "paper_bytes",
    "payload_bytes",
    "peak_memory",
    "perplexity",
    "sizes",
]
