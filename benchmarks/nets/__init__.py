"""The networks, each with one number for its width, so that a small dense rival is the same class made narrower."""
