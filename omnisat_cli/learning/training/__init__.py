"""Networks learn: with labels, without, and on several devices."""
