"""Prune a small convolutional network while it trains, in an ordinary loop: three lines more than without.

Run:  python examples/plain_loop.py [FOLDER]      (needs: pip install 'secateurs[files]' scikit-learn)
"""

import sys

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import secateurs as sc


def build() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 6 * 6, 64), nn.ReLU(), nn.Linear(64, 10))


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    images, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(classes)
    train, test = train_test_split(range(len(y)), test_size=0.3, stratify=classes, random_state=0)
    return x[train], y[train], x[test], y[test]


def main(folder: str) -> float:
    torch.manual_seed(0)
    x, y, test_x, test_y = digits()
    model, steps = build(), 300
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

    pruner = sc.Pruner(model, "gmp", sparsity=0.9, begin=0.1, end=0.75, every=10, total_steps=steps)
    pruner.attach(optimizer)
    for _ in range(steps):
        batch = torch.randint(len(y), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    model = pruner.finish()

    sc.save(model, folder, recipe=pruner.recipe, plan=pruner.plan(), report=pruner.report(), overwrite=True)
    model = sc.load(folder, factory=build)
    with torch.no_grad():
        accuracy = (model(test_x).argmax(1) == test_y).float().mean().item()
    print(f"test accuracy {accuracy:.3f} with {pruner.sparsity:.0%} of the weights removed; saved in {folder}")
    return accuracy


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "pruned-digits")
