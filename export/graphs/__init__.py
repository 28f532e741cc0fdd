"""The ONNX graph: built, indexed, read from files and written to them; which operator holds a weight, on which axis."""
