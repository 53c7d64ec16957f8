"""Evaluation on labeled slices: metrics, confidence intervals, tables and figures."""
