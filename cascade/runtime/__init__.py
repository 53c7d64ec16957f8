"""What executes the two graphs, and the models and engines that it executes."""
