"""The bit-level codes: integers, Huffman, mixed contexts, compressed sparse rows; they know no tensors and no files."""
