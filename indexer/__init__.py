"""Documents in, immutable segments out."""
