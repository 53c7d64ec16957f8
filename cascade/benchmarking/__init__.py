"""How fast each backend is on this machine, and how far from what the machine can do; `benchmark` is the entry."""
