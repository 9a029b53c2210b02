"""Decide where blocks are processed. Knows nothing of pixels."""
