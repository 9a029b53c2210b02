"""Samples become tensors, tensors class probabilities, probabilities a finished block."""
