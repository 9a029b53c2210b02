"""Maps, models and parcels compared with labels."""
