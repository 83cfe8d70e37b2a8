"""One file a method; each is found by its name, nothing is registered by hand."""
