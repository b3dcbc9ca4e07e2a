"""What a model costs and what it is worth: parameters, bytes, multiply-adds, latency, memory; accuracy, perplexity, text."""

from secateurs.measure.connectivity import Segment, segment
from secateurs.measure.dead_neurons import DeadNeurons, dead_neurons
from secateurs.measure.flops import Flops, LayerFlops, multiply_adds
from secateurs.measure.latency import Latency, compare_latency, latency
from secateurs.measure.memory import peak_memory
from secateurs.measure.quality import accuracy, calibration_error, cross_entropy, perplexity
from secateurs.measure.size import Sizes, narrowest, paper_bytes, payload_bytes, sizes, stored_bytes
from secateurs.measure.stability import Distance, distance
from secateurs.measure.words import bleu, bleu_signature, word_error_rate

__all__ = [
    "DeadNeurons",
    "Distance",
    "Flops",
    "Latency",
    "LayerFlops",
    "Segment",
    "Sizes",
    "accuracy",
    "bleu",
    "bleu_signature",
    "calibration_error",
    "compare_latency",
    "cross_entropy",
    "dead_neurons",
    "distance",
    "latency",
    "multiply_adds",
    "narrowest",
    "paper_bytes",
    "payload_bytes",
    "peak_memory",
    "perplexity",
    "segment",
    "sizes",
    "stored_bytes",
    "word_error_rate",
]
