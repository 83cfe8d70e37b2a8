"""Self-supervised pretraining of YOLO detectors on your own images, and the proof of whether it helped."""
