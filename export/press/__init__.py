"""The `.press` artifact: its frame, its directory, the encodings of its tensors. The specification is FORMAT.md."""
