"""Runs of Huffman symbols, compiled with numba; imported only where the extra `fast` is installed.

Streams are padded by the caller (`symbol_runs.PADDING_BYTES`), so that no look-up of at most `LANE_SYMBOLS`
symbols can leave the buffer, whatever the bytes are; where a lane ends is checked afterwards.
"""

import numpy as np
from numba import njit

OUT_OF_BYTES, BAD_LANE, BAD_PADDING, EMPTY_TABLE = -1, -2, -3, -4

_LANE = np.int64(1 << 14)  # symbol_runs.LANE_SYMBOLS
_BYTE = np.uint64(255)


@njit(cache=True, nogil=True)
def count_bits(symbols, lengths):  # type: ignore[no-untyped-def]
    """Bits that symbols take."""
    total = 0
    for i in range(symbols.size):
        total += lengths[symbols[i]]
    return total


@njit(cache=True, nogil=True)
def encode_lane(symbols, codewords, lengths, out, shift):  # type: ignore[no-untyped-def]
    """Write codewords into `out`, low bit first, from bit `shift` (0 to 7) on."""
    pending, n_pending, at = np.uint64(0), np.uint64(shift), 0
    for i in range(symbols.size):
        symbol = symbols[i]
        pending |= np.uint64(codewords[symbol]) << n_pending
        n_pending += np.uint64(lengths[symbol])
        while n_pending >= np.uint64(32):
            out[at] = pending & _BYTE
            out[at + 1] = (pending >> np.uint64(8)) & _BYTE
            out[at + 2] = (pending >> np.uint64(16)) & _BYTE
            out[at + 3] = (pending >> np.uint64(24)) & _BYTE
            at += 4
            pending >>= np.uint64(32)
            n_pending -= np.uint64(32)

    while n_pending > np.uint64(0):
        out[at] = pending & _BYTE
        at += 1
        pending >>= np.uint64(8)
        n_pending -= min(n_pending, np.uint64(8))


@njit(cache=True, nogil=True, inline="always")
def _word(stream, at):  # type: ignore[no-untyped-def]
    """32 bits from byte `at` on."""
    return (
        np.uint64(stream[at])
        | np.uint64(stream[at + 1]) << np.uint64(8)
        | np.uint64(stream[at + 2]) << np.uint64(16)
        | np.uint64(stream[at + 3]) << np.uint64(24)
    )


@njit(cache=True, nogil=True)
def _decode_lane(stream, position, single, width, out, start, stop):  # type: ignore[no-untyped-def]
    """Symbols `start` to `stop` from bit `position` on; returns the bit after them."""
    at = position >> 3
    pending = _word(stream, at) >> np.uint64(position & 7)
    n_pending = np.int64(32 - (position & 7))
    at += 4
    mask = np.uint64((1 << width) - 1)

    for i in range(start, stop):
        if n_pending < width:
            pending |= _word(stream, at) << np.uint64(n_pending)
            at += 4
            n_pending += 32
        entry = single[pending & mask]
        out[i] = entry & 0xFFFF
        pending >>= np.uint64(entry >> 16)
        n_pending -= entry >> 16

    return 8 * at - n_pending


@njit(cache=True, nogil=True)
def _decode_four_lanes(stream, lanes, multi, width, out, first):  # type: ignore[no-untyped-def]
    """Four full lanes in step, up to four symbols a look-up; stops each shortly before its end.

    `lanes` holds four bit positions; returns through it the positions reached and, in rows 4 to 7, the number
    of symbols done. Interleaving hides the latency of one lane's look-up behind those of the others.
    """
    mask, limit = np.uint64((1 << width) - 1), _LANE - np.int64(16)
    s8, s16, s24, s32, s40 = np.uint64(8), np.uint64(16), np.uint64(24), np.uint64(32), np.uint64(40)
    b0, b1, b2, b3 = lanes[0] >> 3, lanes[1] >> 3, lanes[2] >> 3, lanes[3] >> 3
    p0, p1, p2, p3 = _word(stream, b0), _word(stream, b1), _word(stream, b2), _word(stream, b3)
    n0, n1, n2, n3 = s32, s32, s32, s32
    b0, b1, b2, b3 = b0 + 4, b1 + 4, b2 + 4, b3 + 4
    o0, o1, o2, o3 = first, first + _LANE, first + 2 * _LANE, first + 3 * _LANE

    e0, e1, e2, e3 = o0 + limit, o1 + limit, o2 + limit, o3 + limit
    while o0 < e0 and o1 < e1 and o2 < e2 and o3 < e3:
        if n0 < s32:
            p0 |= _word(stream, b0) << n0
            b0 += 4
            n0 += s32

        if n1 < s32:
            p1 |= _word(stream, b1) << n1
            b1 += 4
            n1 += s32

        if n2 < s32:
            p2 |= _word(stream, b2) << n2
            b2 += 4
            n2 += s32

        if n3 < s32:
            p3 |= _word(stream, b3) << n3
            b3 += 4
            n3 += s32

        for _ in range(2):  # two look-ups of at most 15 bits fit into the 32 that are sure
            entry = multi[p0 & mask]
            out[o0] = entry & _BYTE
            out[o0 + 1] = (entry >> s8) & _BYTE
            out[o0 + 2] = (entry >> s16) & _BYTE
            out[o0 + 3] = (entry >> s24) & _BYTE
            bits = (entry >> s32) & _BYTE
            p0 >>= bits
            n0 -= bits
            o0 += np.int64(entry >> s40)
            entry = multi[p1 & mask]
            out[o1] = entry & _BYTE
            out[o1 + 1] = (entry >> s8) & _BYTE
            out[o1 + 2] = (entry >> s16) & _BYTE
            out[o1 + 3] = (entry >> s24) & _BYTE
            bits = (entry >> s32) & _BYTE
            p1 >>= bits
            n1 -= bits
            o1 += np.int64(entry >> s40)
            entry = multi[p2 & mask]
            out[o2] = entry & _BYTE
            out[o2 + 1] = (entry >> s8) & _BYTE
            out[o2 + 2] = (entry >> s16) & _BYTE
            out[o2 + 3] = (entry >> s24) & _BYTE
            bits = (entry >> s32) & _BYTE
            p2 >>= bits
            n2 -= bits
            o2 += np.int64(entry >> s40)
            entry = multi[p3 & mask]
            out[o3] = entry & _BYTE
            out[o3 + 1] = (entry >> s8) & _BYTE
            out[o3 + 2] = (entry >> s16) & _BYTE
            out[o3 + 3] = (entry >> s24) & _BYTE
            bits = (entry >> s32) & _BYTE
            p3 >>= bits
            n3 -= bits
            o3 += np.int64(entry >> s40)

    lanes[0], lanes[4] = 8 * b0 - np.int64(n0), o0 - first
    lanes[1], lanes[5] = 8 * b1 - np.int64(n1), o1 - first - _LANE
    lanes[2], lanes[6] = 8 * b2 - np.int64(n2), o2 - first - 2 * _LANE
    lanes[3], lanes[7] = 8 * b3 - np.int64(n3), o3 - first - 3 * _LANE


@njit(cache=True, nogil=True)
def decode_run(stream, end, position, single, multi, width, out):  # type: ignore[no-untyped-def]
    """Decode ``out.size`` symbols from bit `position`; returns the bit after them, or an error code.

    Args:
        stream: Padded bytes.
        end: Bytes that belong to the stream.
        position: Bit.
        single: Shape ``(1 << width,)``: symbol in the low 16 bits, length above.
        multi: The same length with up to four symbols of 8 bits, total length, count; empty: not used.
        width: Bits of a look-up.
        out: Symbols.
    """
    n = out.size
    if n <= _LANE:
        position = _decode_lane(stream, position, single, width, out, 0, n)
        return position if position <= 8 * end else OUT_OF_BYTES

    n_lanes = (n + _LANE - 1) // _LANE
    directory = (position + 7) >> 3
    if (position & 7) and stream[position >> 3] >> (position & 7):
        return BAD_PADDING

    if directory + 2 * n_lanes > end:
        return OUT_OF_BYTES

    starts = np.empty(n_lanes + 1, np.int64)
    starts[0] = directory + 2 * n_lanes
    for lane in range(n_lanes):
        at = directory + 2 * lane
        starts[lane + 1] = starts[lane] + np.int64(stream[at]) + (np.int64(stream[at + 1]) << 8)

    if starts[n_lanes] > end:
        return OUT_OF_BYTES

    state = np.zeros(8, np.int64)
    lane = 0
    while lane < n_lanes:
        together = 4 if multi.size and (lane + 4) * _LANE <= n else 1
        for k in range(together):
            state[k], state[k + 4] = 8 * starts[lane + k], 0

        if together == 4:
            _decode_four_lanes(stream, state, multi, width, out, lane * _LANE)

        for k in range(together):
            first = (lane + k) * _LANE
            reached = _decode_lane(
                stream, state[k], single, width, out, first + state[k + 4], min(first + _LANE, n)
            )
            if (reached + 7) >> 3 != starts[lane + k + 1]:
                return BAD_LANE
            if (reached & 7) and stream[reached >> 3] >> (reached & 7):
                return BAD_PADDING

        lane += together

    return 8 * starts[n_lanes]


@njit(cache=True, nogil=True)
def fill_single(lengths, width, entries):  # type: ignore[no-untyped-def]
    """`CodeTable.single` for these codeword lengths, into an array of ``2**width`` or more entries."""
    first = np.zeros(17, np.int64)
    for symbol in range(lengths.size):
        if lengths[symbol]:
            first[lengths[symbol] + 1] += 1

    for length in range(1, 17):  # the first codeword of each length, as in RFC 1951, section 3.2.2
        first[length] = (first[length - 1] + first[length]) << 1 if length > 1 else 0

    for symbol in range(lengths.size):
        bits = np.int64(lengths[symbol])
        if bits:
            codeword, backward = first[bits], np.int64(0)
            first[bits] += 1
            for bit in range(bits):
                backward |= (codeword >> bit & 1) << (bits - 1 - bit)
            for at in range(backward, 1 << width, 1 << bits):
                entries[at] = symbol | bits << 16


@njit(cache=True, nogil=True)
def fill_kernel_lookups(lengths, entries, facts):  # type: ignore[no-untyped-def]
    """For every row of lengths: its `fill_single`; in `facts`, row 0, the width, and in row 2 the only symbol.

    The width is 0 where at most one symbol has a codeword; the only symbol stays -1 where none has.
    """
    for c in range(lengths.shape[0]):
        used, width, only = 0, 0, -1
        for symbol in range(lengths.shape[1]):
            if lengths[c, symbol]:
                used += 1
                only = symbol
                if lengths[c, symbol] > width:
                    width = int(lengths[c, symbol])

        facts[2, c] = only
        if used > 1:
            facts[0, c] = width
            fill_single(lengths[c], width, entries[c])


@njit(cache=True, nogil=True)
def decode_kernels(  # type: ignore[no-untyped-def]
    stream, end, position, masks, kernels, row, entries, widths, lowest, only
):
    """Fill `kernels`, shape ``(n, taps)``, tap by tap and context by context; returns as `decode_run`.

    Args:
        stream: Padded bytes.
        end: Bytes that belong to the stream.
        position: Bit.
        masks: Shape ``(n,)``; which taps are not zero.
        kernels: Zeros; filled.
        row: Taps in a row of the kernel.
        entries: Shape ``(contexts, 2**width)``; a `CodeTable.single` per context.
        widths: Shape ``(contexts,)``; bits of the longest codeword; 0: the only symbol takes no bits.
        lowest: Shape ``(contexts,)``; the level of symbol 0.
        only: Shape ``(contexts,)``; the symbol that takes no bits; -1 where there is none at all.
    """
    n, taps = kernels.shape
    contexts = widths.size
    none = np.empty(0, np.uint64)
    present = np.empty(n + 1, np.int32)  # kernels with a level at this tap
    of = np.zeros(n, np.uint8)  # context of each
    order = np.empty(n, np.int32)  # the same kernels, context by context

    symbols = np.empty(n, np.uint16)
    for tap in range(taps):
        m = 0
        for k in range(n):  # without a branch: which kernels come is a coin toss
            present[m] = k
            m += masks[k] >> tap & 1

        first = np.zeros(contexts + 1, np.int64)
        if contexts > 1:
            for i in range(m):
                left = kernels[present[i], tap - 1] if tap % row else 0
                above = kernels[present[i], tap - row] if tap >= row else 0
                of[i] = 3 * (2 * (left > 0) + (left < 0)) + 2 * (above > 0) + (above < 0)
                first[of[i] + 1] += 1
        else:
            first[1] = m

        for c in range(contexts):
            first[c + 1] += first[c]

        fill = first.copy()
        for i in range(m):
            order[fill[of[i]]] = present[i]
            fill[of[i]] += 1

        for c in range(contexts):
            count = first[c + 1] - first[c]
            if count == 0:
                continue

            if widths[c] == 0:
                if only[c] < 0:
                    return EMPTY_TABLE
                symbols[:count] = only[c]
            else:
                position = decode_run(stream, end, position, entries[c], none, widths[c], symbols[:count])
                if position < 0:
                    return position

            for i in range(count):
                kernels[order[first[c] + i], tap] = np.int64(symbols[i]) + lowest[c]

    return position


@njit(cache=True, nogil=True)
def codes_from_levels(levels, centres, n_centres, low, high, codes, support):  # type: ignore[no-untyped-def]
    """Fill codes, and the support if it is not empty; returns whether every code lies in ``low .. high``.

    Args:
        levels: Shape ``(n,)``.
        centres: Shape ``(n,)``, or of one element for all if `n_centres` is 1.
        n_centres: As said.
        low: Lowest code.
        high: Highest code.
        codes: Shape ``(n,)``; filled.
        support: Shape ``(n,)`` or ``(0,)``; filled.
    """
    has_support = support.size > 0
    for i in range(levels.size):
        level = np.int64(levels[i])
        code = level + np.int64(centres[i if n_centres > 1 else 0])
        if has_support:
            support[i] = level != 0
            code = (code - np.int64(level > 0)) * np.int64(level != 0)
        if code < low or code > high:
            return False
        codes[i] = code

    return True
