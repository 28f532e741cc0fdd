"""The deployable side: integer codes, CSR, entropy coding, the `.press` artifact and ONNX. No torch."""
