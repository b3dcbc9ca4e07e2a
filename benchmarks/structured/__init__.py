"""ResNet-56 on CIFAR-10 at a given share of its multiply-adds: this library and Torch-Pruning, on the same data."""
