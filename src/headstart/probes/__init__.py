"""Is it learning, is it collapsing: measures and pictures."""
