"""Does pretraining help? Controlled fine-tunings that differ in their start alone."""
