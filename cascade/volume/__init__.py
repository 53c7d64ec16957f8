"""Predictions of the slices of one volume → one finding: components across slices, volume, diameters and class."""
