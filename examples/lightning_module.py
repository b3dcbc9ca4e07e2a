"""Prune a LightningModule: one callback.

Run:  python examples/lightning_module.py [FOLDER]      (needs: pip install 'secateurs[lightning,files]' scikit-learn)
"""

import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import secateurs as sc
from secateurs.train.integrations.lightning_callback import PrunerCallback


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


class Digits(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = build()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.003)


def main(folder: str) -> float:
    torch.manual_seed(0)
    images, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(classes)
    train, test = train_test_split(range(len(y)), test_size=0.3, stratify=classes, random_state=0)
    loader = DataLoader(TensorDataset(x[train], y[train]), batch_size=64, shuffle=True)
    module = Digits()

    callback = PrunerCallback("gmp", sparsity=0.9, begin=0.1, end=0.75, every=10)
    Trainer(max_epochs=15, callbacks=[callback], default_root_dir=folder, logger=False).fit(module, loader)

    pruner = callback.pruner
    sc.save(module.net, Path(folder, "sparse"), recipe=pruner.recipe, report=pruner.report(), overwrite=True)
    net = sc.load(Path(folder, "sparse"), factory=build)
    with torch.no_grad():
        accuracy = (net(x[test]).argmax(1) == y[test]).float().mean().item()
    print(f"test accuracy {accuracy:.3f} with {pruner.sparsity:.0%} of the weights removed; saved in {folder}")
    return accuracy


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "pruned-lightning")
