"""Any ONNX file in: networks of torchvision as both exporters write them, packed, and beside quantize_static."""
