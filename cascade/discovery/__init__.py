"""Command-line arguments → the files to read: paths, patterns, folders and zips."""
