"""Classifiers from examples: the head that is trained on embeddings, its training and its place in Redis."""
