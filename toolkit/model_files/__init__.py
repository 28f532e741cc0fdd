"""What is done with finished models: pack, inspect, verify, unpack, write ONNX, measure."""
