"""The two-layer word LSTM of Zaremba et al. (2014): h = 200, 650 and 1500 with 10,000 words are 4.65, 19.78 and 66.02 M."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["State", "WordLM"]

State = tuple[Tensor, Tensor]


class WordLM(nn.Module):
    """Word ids ``[time, batch]`` and the state before (none: zeros) to logits ``[time, batch, words]`` and the state behind."""

    def __init__(self, width: int = 200, words: int = 10_000, layers: int = 2, dropout: float = 0.0, init: float = 0.1):
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, width, layers, dropout=dropout)
        self.softmax = nn.Linear(width, words)
        self.dropout = nn.Dropout(dropout)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -init, init)
        # PyTorch adds two biases where the published cell has one: the second stays zero and is not counted
        for layer in range(layers):
            getattr(self.lstm, f"bias_hh_l{layer}").requires_grad_(False).zero_()

    def start(self, batch: int) -> State:
        """The zero state: two tensors ``[layers, batch, width]``."""
        zeros = torch.zeros(self.lstm.num_layers, batch, self.lstm.hidden_size)
        return zeros, zeros.clone()

    def forward(self, words: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        hidden, after = self.lstm(self.dropout(self.embedding(words)), state)
        return self.softmax(self.dropout(hidden)), after
