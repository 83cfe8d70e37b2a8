"""One file a detector family; each is found by its name, nothing is registered by hand."""
