"""Embeddings of an area, and heads fitted on them."""
