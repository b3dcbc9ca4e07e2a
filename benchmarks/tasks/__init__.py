"""What the recipes name: networks by width, data in three parts, and training and metrics of their own for text."""
