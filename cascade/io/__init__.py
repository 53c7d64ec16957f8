"""One input → slices, and a mask back onto the grid of its input."""
