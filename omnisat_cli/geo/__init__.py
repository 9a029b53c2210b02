"""An area of interest becomes integer lattices, blocks and windows. Opens no file."""
