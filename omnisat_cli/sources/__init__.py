"""The only place where bytes come in: areas, images, series. Recognises, states, refuses."""
