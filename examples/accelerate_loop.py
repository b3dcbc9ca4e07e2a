"""Prune in a loop under Accelerate, with gradient accumulation, a checkpoint in the middle and a resume from it.

Run:  python examples/accelerate_loop.py [FOLDER]      (needs: pip install 'secateurs[accelerate,files]' scikit-learn)
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import secateurs as sc


def build() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def digits() -> tuple[TensorDataset, torch.Tensor, torch.Tensor]:
    images, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(classes)
    train, test = train_test_split(range(len(y)), test_size=0.3, stratify=classes, random_state=0)
    return TensorDataset(x[train], y[train]), x[test], y[test]


def main(folder: str) -> float:
    torch.manual_seed(0)
    accelerator = Accelerator(gradient_accumulation_steps=2)
    data, test_x, test_y = digits()
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    loader = DataLoader(data, batch_size=32, shuffle=True, drop_last=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    epochs = 20
    steps = epochs * -(-len(loader) // 2)  # optimizer steps: the last batch of an epoch always makes one

    pruner = sc.Pruner(model, "gmp", sparsity=0.9, begin=0.1, end=0.75, every=10, total_steps=steps)
    pruner.attach(optimizer)
    accelerator.register_for_checkpointing(pruner)
    for epoch in range(epochs):
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.cross_entropy(model(x), y))
                optimizer.step()
                optimizer.zero_grad()
        if epoch == epochs // 2:
            accelerator.save_state(str(Path(folder, "half-way")))
            accelerator.load_state(str(Path(folder, "half-way")))  # as a new process would, after prepare and attach
    model = accelerator.unwrap_model(pruner.finish())

    sc.save(model, Path(folder, "sparse"), recipe=pruner.recipe, plan=pruner.plan(), report=pruner.report(), overwrite=True)
    model = sc.load(Path(folder, "sparse"), factory=build)
    with torch.no_grad():
        accuracy = (model(test_x).argmax(1) == test_y).float().mean().item()
    print(f"test accuracy {accuracy:.3f} with {pruner.sparsity:.0%} of the weights removed; saved in {folder}")
    return accuracy


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "pruned-accelerate")
