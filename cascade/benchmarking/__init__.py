"""Speed of each backend on this machine, and its share of the machine's peak. Start reading in benchmark.py."""
