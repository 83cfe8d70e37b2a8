"""From a batch of uint8 images to augmented views and their geometry, on the device."""
