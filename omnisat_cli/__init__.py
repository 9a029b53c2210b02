"""omnisat: land-cover and crop maps from whatever imagery exists over a place."""
