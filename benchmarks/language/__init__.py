"""What one-shot pruning costs a small language model, by method, amount and the text it was calibrated on."""
