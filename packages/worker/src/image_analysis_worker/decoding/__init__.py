"""From an image's bytes to a model's input, in processes with limits."""
