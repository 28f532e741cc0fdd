"""Blobs of the encodings 1 to 3, which nothing writes any longer: FORMAT.md, "Version 1.0", the other way round."""

import struct

import numpy as np

from modelpress.export.coding.huffman import code_lengths


def every_way_of_1_0(tensor):
    """Blob of a `QuantizedTensor` by encoding id."""
    grid = grid_bytes(tensor)
    meaning = ([None] if tensor.support is not None else []) + codes_of(tensor)
    stored = codes_and_none(tensor)
    symbols = [meaning.index(code) for code in stored]
    width = (len(meaning) - 1).bit_length()
    table, stream = table_and_stream(symbols, len(meaning))
    ways = {
        1: grid + packed_bits([(symbol, width) for symbol in symbols]),
        2: grid + table + stream,
    }
    if stored and (tensor.offset is None or tensor.support is not None):
        ways[3] = grid + csr(stored, codes_of(tensor), None if tensor.support is not None else 0)
    return ways


def csr(stored, codes, zero, gap_width=3):
    gaps, values, last, filler = [], [], -1, 2**gap_width - 1
    for position, code in enumerate(stored):
        if code == zero:
            continue
        fillers, gap = divmod(position - last - 1, filler)
        gaps += [filler] * fillers + [gap]
        values.append(codes.index(code))
        last = position
    gap_table, gap_stream = table_and_stream(gaps, filler + 1)
    value_table, value_stream = table_and_stream(values, len(codes))
    header = struct.pack("<IIIB", len(values), len(gaps), len(gap_stream), gap_width)
    return header + gap_table + value_table + gap_stream + value_stream


def grid_bytes(tensor):
    flags = (tensor.offset is not None) + 2 * (tensor.support is not None)
    flags += 4 * (np.ndim(tensor.scale) == 1) + 8 * (tensor.channel_scale is not None)
    parameters = [tensor.scale, tensor.offset, tensor.channel_scale]
    floats = [np.asarray(p, "<f4").tobytes() for p in parameters if p is not None]
    return bytes([tensor.bits, flags]) + b"".join(floats)


def codes_of(tensor):
    low, high = tensor.code_range
    return list(range(low, high + 1))


def codes_and_none(tensor):
    codes = tensor.codes.reshape(-1).tolist()
    if tensor.support is None:
        return codes
    inside = tensor.support.reshape(-1).tolist()
    return [code if kept else None for code, kept in zip(codes, inside, strict=True)]


def table_and_stream(symbols, n):
    lengths = code_lengths(np.bincount(symbols, minlength=n) if symbols else np.zeros(n, np.int64)).tolist()
    table = packed_bits([(length, 4) for length in lengths])
    if sum(map(bool, lengths)) < 2:
        return table, b""
    words, codeword, previous = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        codeword <<= length - previous
        words[symbol] = int(f"{codeword:0{length}b}"[::-1], 2), length
        codeword, previous = codeword + 1, length
    return table, packed_bits([words[symbol] for symbol in symbols])


def packed_bits(fields):
    """(value, width) one after the other, low bits first."""
    total = position = 0
    for value, width in fields:
        total |= value << position
        position += width
    return total.to_bytes((position + 7) // 8, "little")
