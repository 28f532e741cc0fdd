"""Other versions of ONNX Runtime: what each can do, and whether it gives the same answers."""
