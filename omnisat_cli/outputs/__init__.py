"""The only place where bytes go out: block store, mosaics, legend sidecars, provenance."""
