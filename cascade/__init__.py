"""Find brain tumors in T1-weighted contrast-enhanced MRI slices and name them. For research only."""

__version__ = "0.1.0"
