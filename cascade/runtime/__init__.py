"""Runtimes that execute the two graphs, and the models and engines on disk that they load."""
