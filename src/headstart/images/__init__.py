"""From files to batches of pixels: index, decode, load."""
