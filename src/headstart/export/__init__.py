"""A backbone for other tools: as safetensors, ONNX or timm's, checked after it was written, with a model card."""
