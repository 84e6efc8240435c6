"""Embeddings of images, learnt from a teacher without labels."""
