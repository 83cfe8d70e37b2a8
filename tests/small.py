"""A detector of a few layers, which is built in a moment."""

SMALL = """\
nc: 2
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [-1, 1, Conv, [16, 1, 1]]
  - [[2, 3, 4], 1, Detect, [nc]]
"""
