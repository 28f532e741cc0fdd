"""What the graphs that are drawn here have in common."""

# Opset 13 with IR version 8 loads in every onnxruntime since 1.15.
OPSET, IR_VERSION = 13, 8
INPUT, OUTPUT = "images", "logits"
