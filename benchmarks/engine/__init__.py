"""What the engine costs: time added to a training step, state kept, time to rank a large model, time to import."""
