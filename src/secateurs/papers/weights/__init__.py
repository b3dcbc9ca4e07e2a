"""Methods that remove single weights, N:M patterns, blocks and rows of a mask."""
