"""Parcels: the regions of a class map as a seamless vector coverage."""
