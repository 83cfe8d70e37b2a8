"""Features of images and boxes, and what they are good for: near-duplicates, and what to label next."""
