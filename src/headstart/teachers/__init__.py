"""Trained networks that a method learns from."""
