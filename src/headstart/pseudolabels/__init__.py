"""Boxes and labels that nobody drew: found, clustered, shown."""
