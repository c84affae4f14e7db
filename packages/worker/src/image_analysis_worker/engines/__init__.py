"""Model checkpoints, and the engines that run them."""
