"""Turn command-line arguments (paths, patterns, folders, zip files) into the list of files to read."""
