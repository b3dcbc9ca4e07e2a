"""What the comparison harness costs: time added to a run, runs side by side, a large results file read and drawn."""
