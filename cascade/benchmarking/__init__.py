"""What `cascade benchmark` measures and how it shows it; `cascade.benchmark` puts it together."""
