"""Labelled data sets: what is in them, and which patients train, tune and test."""
