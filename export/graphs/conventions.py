"""What graphs have in common: those that are drawn here, and all that are read."""

# Opset 13 with IR version 8 loads in every onnxruntime since 1.15.
OPSET, IR_VERSION = 13, 8
INPUT, OUTPUT = "images", "logits"

EXITS_METADATA = "modelpress.exits"  # key of what a model says of its early exits
MAX_NODES = 1 << 17  # more than any exporter writes; a checker takes about a second for them
