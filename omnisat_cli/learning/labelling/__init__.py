"""A user's labels on a lattice."""
