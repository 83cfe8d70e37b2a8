"""The stories, each read from top to bottom: pretrain, compare, probe, demo."""
