"""Which architectures can lose structure, and is what is left the same function: the list, ours, and a peer beside it."""
