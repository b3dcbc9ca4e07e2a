"""Methods made for large language models: after training, with a little text, block by block."""
