"""Labeled data sets: reading, summary statistics and patient-level splits."""
