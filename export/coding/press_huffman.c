/* Code tables, and runs of Huffman symbols read; FORMAT.md, "Code tables" and "Runs". */

#include "press_internal.h"

#if defined(PRESS_SMALL) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("Os") /* what runs for every weight is elsewhere */
#endif

/* ---- Streams ---- */

press_status press_align(press_stream *stream)
{
    unsigned used = (unsigned)(stream->position & 7);

    if (used && stream->data[(size_t)(stream->position >> 3)] >> used) {
        return PRESS_PADDING;
    }
    stream->position = (stream->position + 7) & ~(uint64_t)7;
    return PRESS_OK;
}

press_status press_take_bytes(press_stream *stream, size_t n_bytes, const uint8_t **bytes)
{
    press_status status = press_align(stream);
    size_t start = (size_t)(stream->position >> 3);

    if (status) {
        return status;
    }
    if (n_bytes > stream->size - start) {
        return PRESS_ENDS_EARLY;
    }
    *bytes = stream->data + start;
    stream->position += 8 * (uint64_t)n_bytes;
    return PRESS_OK;
}

/* An integer of at most nine bytes in its shortest form. */
static press_status read_varint(const uint8_t *data, size_t size, uint64_t *value, size_t *taken)
{
    unsigned k;

    *value = 0;
    for (k = 0; k < 9; k++) {
        if (k >= size) {
            return PRESS_ENDS_EARLY;
        }
        *value |= (uint64_t)(data[k] & 127) << (7 * k);
        if (data[k] < 128) {
            *taken = k + 1;
            return k && data[k] == 0 ? PRESS_BAD_INTEGER : PRESS_OK;
        }
    }
    return PRESS_BAD_INTEGER;
}

press_status press_take_varint(press_stream *stream, uint64_t *value)
{
    press_status status = press_align(stream);
    size_t start = (size_t)(stream->position >> 3), taken = 0;

    if (status) {
        return status;
    }
    status = read_varint(stream->data + start, stream->size - start, value, &taken);
    stream->position += 8 * (uint64_t)taken;
    return status;
}

press_status press_finish(press_stream *stream)
{
    press_status status = press_align(stream);

    if (status) {
        return status;
    }
    return stream->position == 8 * (uint64_t)stream->size ? PRESS_OK : PRESS_LEFT_OVER;
}

/* ---- Code tables ---- */

static unsigned length_of(const press_code *code, unsigned symbol)
{
    return (unsigned)code->lengths[symbol >> 1] >> (4 * (symbol & 1)) & 15u;
}

press_status press_check_lengths(const uint8_t *lengths, unsigned n, press_code *code)
{
    uint32_t kraft = 0; /* in units of 2^-15; at most 1024 * 2^14 */
    unsigned symbol;

    code->n = (uint16_t)n;
    code->used = code->only = 0;
    code->width = 0;
    code->lengths = lengths;
    for (symbol = 0; symbol < n; symbol++) {
        unsigned length = length_of(code, symbol);

        if (length) {
            code->used++;
            code->only = (uint16_t)symbol;
            kraft += (uint32_t)1 << (PRESS_MAX_BITS - length);
            code->width = (uint8_t)(length > code->width ? length : code->width);
        }
    }

    if (n % 2 && lengths[n / 2] >> 4) {
        return PRESS_PADDING;
    }
    if (code->used == 1 ? code->width != 1 : code->used && kraft != (uint32_t)1 << PRESS_MAX_BITS) {
        return PRESS_BAD_TABLE;
    }
    return PRESS_OK;
}

press_status press_read_code(const uint8_t *data, size_t size, press_code *code, size_t *taken)
{
    uint64_t lowest, n;
    size_t first, second;
    press_status status = read_varint(data, size, &lowest, &first);

    if (status) {
        return status;
    }
    status = read_varint(data + first, size - first, &n, &second);
    if (status) {
        return status;
    }

    /* as a zigzag: 2v, or -2v - 1 */
    if (n > PRESS_MAX_ALPHABET || lowest > 2 * PRESS_MAX_ALPHABET || (!n && lowest)) {
        return PRESS_BAD_TABLE;
    }
    code->lowest = lowest & 1 ? -(int32_t)((lowest + 1) >> 1) : (int32_t)(lowest >> 1);

    *taken = first + second + (size_t)(n + 1) / 2;
    if (*taken > size) {
        return PRESS_ENDS_EARLY;
    }
    status = press_check_lengths(data + first + second, (unsigned)n, code);
    if (status == PRESS_OK && n && !(length_of(code, 0) && length_of(code, (unsigned)n - 1))) {
        status = PRESS_BAD_TABLE;
    }
    return status;
}

press_status press_shared_open(press_shared *shared, const uint8_t *data, size_t size)
{
    size_t at = 1, taken;
    unsigned group, table;
    press_code code;
    press_status status;

    if (size < 1) {
        return PRESS_ENDS_EARLY;
    }
    shared->data = data;
    shared->size = size;
    shared->n_groups = data[0];
    for (group = 0; group < shared->n_groups; group++) {
        if (at >= size || at > 0xFFFFFFFFu) {
            return PRESS_ENDS_EARLY;
        }
        shared->starts[group] = (uint32_t)at;
        for (table = data[at++]; table > 0; table--) {
            status = press_read_code(data + at, size - at, &code, &taken);
            if (status) {
                return status;
            }
            at += taken;
        }
    }
    return at == size ? PRESS_OK : PRESS_LEFT_OVER;
}

/* ---- Look-ups ---- */

static unsigned single_bits(const press_code *code)
{
    return code->width < PRESS_SINGLE_BITS ? code->width : PRESS_SINGLE_BITS;
}

/* 0 where several symbols at once cannot be looked up. */
static unsigned many_bits(const press_code *code)
{
#ifdef PRESS_SMALL
    (void)code;
    return 0;
#else
    if (code->n > 256 || code->used < 2 || code->width > PRESS_MANY_BITS_MOST) {
        return 0;
    }
    return code->width < PRESS_MANY_BITS_LEAST ? PRESS_MANY_BITS_LEAST : code->width;
#endif
}

size_t press_lookup_size(const press_code *code, int many)
{
    unsigned bits = many ? many_bits(code) : 0;

    return (bits ? (size_t)8 << bits : 0) + ((size_t)2 << single_bits(code)) + (2 * (size_t)code->n + 7) / 8 * 8;
}

/* Symbols by length, then number; and how many have each length. */
static void sort_symbols(press_lookup *lookup)
{
    const press_code *code = &lookup->code;
    unsigned next[PRESS_MAX_BITS + 2], symbol, length;

    memset(lookup->counts, 0, sizeof lookup->counts);
    for (symbol = 0; symbol < code->n; symbol++) {
        lookup->counts[length_of(code, symbol)]++;
    }
    lookup->counts[0] = 0;

    next[1] = 0;
    for (length = 1; length <= PRESS_MAX_BITS; length++) {
        next[length + 1] = next[length] + lookup->counts[length];
    }
    for (symbol = 0; symbol < code->n; symbol++) {
        length = length_of(code, symbol);
        if (length) {
            lookup->sorted[next[length]++] = (uint16_t)symbol;
        }
    }
}

/* For every window: symbol above, length in the low four bits; 0 where the codeword is longer than the window. */
static void fill_single(press_lookup *lookup)
{
    unsigned length, at, k, index = 0, codeword = 0;
    unsigned size = 1u << lookup->bits;

    if (lookup->bits < lookup->code.width) {
        memset(lookup->single, 0, sizeof(uint16_t) << lookup->bits);
    }
    for (length = 1; length <= lookup->bits; length++) {
        for (k = lookup->counts[length]; k > 0; k--, codeword++, index++) {
            unsigned backward = 0, bit;
            uint16_t entry = (uint16_t)((unsigned)lookup->sorted[index] << 4 | length);

            for (bit = 0; bit < length; bit++) {
                backward |= (codeword >> bit & 1u) << (length - 1 - bit);
            }
            for (at = backward; at < size; at += 1u << length) {
                lookup->single[at] = entry;
            }
        }
        codeword <<= 1;
    }
    lookup->long_first = codeword;
    lookup->long_index = index;
}

#ifndef PRESS_SMALL
/*
 * For every window: up to seven whole symbols, a byte each, then their bits in four bits and their number in four. What
 * follows the first symbol is what a shorter window holds: windows are taken in an order that has it ready.
 */
static void fill_many(press_lookup *lookup)
{
    uint32_t window, size = (uint32_t)1 << lookup->many_bits;

    for (window = 0; window < size; window++) {
        uint64_t entry = 0;
        uint32_t rest = window;
        unsigned bits = 0, number = 0;

        while (number < 7) {
            unsigned found = lookup->single[rest & (((uint32_t)1 << lookup->bits) - 1)];

            if (bits + (found & 15) > lookup->many_bits) {
                break;
            }
            entry |= (uint64_t)(found >> 4) << (8 * number);
            bits += found & 15;
            rest >>= found & 15;
            number++;
        }
        lookup->many[window] = entry | (uint64_t)(bits | number << 4) << 56;
    }
}
#endif

void press_make_lookup(press_lookup *lookup, const press_code *code, void *memory, int many)
{
    lookup->code = *code;
    lookup->bits = single_bits(code);
    lookup->many_bits = many ? many_bits(code) : 0;
    lookup->many = (uint64_t *)memory;
    lookup->single = (uint16_t *)(void *)((uint8_t *)memory + (lookup->many_bits ? (size_t)8 << lookup->many_bits : 0));
    lookup->sorted = lookup->single + ((size_t)1 << lookup->bits);
    if (code->used < 2) {
        return;
    }
    sort_symbols(lookup);
    fill_single(lookup);
#ifndef PRESS_SMALL
    if (lookup->many_bits) {
        fill_many(lookup);
    }
#endif
}

/* ---- Runs ---- */

/* Bit by bit, as codes are canonical. */
unsigned press_long_codeword(const press_lookup *lookup, uint64_t window, unsigned *length)
{
    unsigned codeword = 0, first = lookup->long_first, index = lookup->long_index, n;

    for (n = 0; n < lookup->bits; n++) {
        codeword = codeword << 1 | (unsigned)(window >> n & 1);
    }
    codeword <<= 1;
    for (n = lookup->bits + 1; n < PRESS_MAX_BITS; n++) {
        unsigned count = lookup->counts[n];

        codeword |= (unsigned)(window >> (n - 1) & 1);
        if (codeword < first + count) {
            break;
        }
        index += count;
        first = (first + count) << 1;
        codeword <<= 1;
    }
    if (n == PRESS_MAX_BITS) {
        codeword |= (unsigned)(window >> (n - 1) & 1);
    }
    *length = n;
    return lookup->sorted[index + codeword - first];
}

/* The symbol that a window of at least 15 bits starts with. */
static inline unsigned next_symbol(const press_lookup *lookup, uint64_t window, unsigned *length)
{
    unsigned entry = lookup->single[window & (((uint64_t)1 << lookup->bits) - 1)];

    *length = entry & 15;
    return *length ? entry >> 4 : press_long_codeword(lookup, window, length);
}

static inline void put_symbol(void *symbols, size_t at, int wide, unsigned symbol)
{
    if (wide) {
        ((uint16_t *)symbols)[at] = (uint16_t)symbol;
    } else {
        ((uint8_t *)symbols)[at] = (uint8_t)symbol;
    }
}

/* Symbols first to count - 1 from the current bit on; the stream may end up beyond its end: the caller checks. */
#ifdef PRESS_SMALL
/* One at a time, from windows of 32 bits: small devices have no wider registers. */
static inline void take_some(press_stream *stream, const press_lookup *lookup, size_t first, size_t count, int wide,
                             void *symbols)
{
    size_t at = (size_t)(stream->position >> 3), i;
    unsigned bit = (unsigned)stream->position & 7, length;

    for (i = first; i < count; i++) {
        uint32_t window = at + 4 <= stream->size ? press_load32(stream->data + at)
                                                 : (uint32_t)press_load64_within(stream->data, stream->size, at);

        put_symbol(symbols, i, wide, next_symbol(lookup, window >> bit, &length));
        bit += length;
        at += bit >> 3;
        bit &= 7;
    }
    stream->position = 8 * (uint64_t)at + bit;
}
#else
static inline void take_some(press_stream *stream, const press_lookup *lookup, size_t first, size_t count, int wide,
                             void *symbols)
{
    uint64_t position = stream->position;
    size_t i = first;
    unsigned length;

    /* three codewords of at most 15 bits are in eight bytes, wherever the first one begins */
    while (count - i >= 3 && (position >> 3) + 8 <= stream->size) {
        uint64_t window = press_load64(stream->data + (size_t)(position >> 3)) >> (position & 7);
        unsigned k;

        for (k = 0; k < 3; k++) {
            put_symbol(symbols, i++, wide, next_symbol(lookup, window, &length));
            window >>= length;
            position += length;
        }
    }
    for (; i < count; i++) {
        uint64_t window = press_load64_within(stream->data, stream->size, position >> 3) >> (position & 7);

        put_symbol(symbols, i, wide, next_symbol(lookup, window, &length));
        position += length;
    }
    stream->position = position;
}
#endif

static void take_bytes_of(press_stream *stream, const press_lookup *lookup, size_t first, size_t count, void *symbols)
{
    take_some(stream, lookup, first, count, 0, symbols);
}

static void take_words_of(press_stream *stream, const press_lookup *lookup, size_t first, size_t count, void *symbols)
{
    take_some(stream, lookup, first, count, 1, symbols);
}

press_status press_take_symbols(press_stream *stream, const press_lookup *lookup, size_t count, int wide,
                                void *symbols)
{
    if (count > 8 * (uint64_t)stream->size - stream->position) { /* every codeword has a bit */
        return PRESS_ENDS_EARLY;
    }
    (wide ? take_words_of : take_bytes_of)(stream, lookup, 0, count, symbols);
    return stream->position > 8 * (uint64_t)stream->size ? PRESS_ENDS_EARLY : PRESS_OK;
}

#ifndef PRESS_SMALL
/* One look-up: up to seven symbols. */
#define STEP(k)                                                                                                        \
    do {                                                                                                               \
        uint64_t entry = many[window##k & mask];                                                                       \
        unsigned bits = (unsigned)(entry >> 56) & 15u;                                                                 \
        press_store64(out##k, entry);                                                                                  \
        out##k += entry >> 60;                                                                                         \
        window##k >>= bits;                                                                                            \
        at##k += bits;                                                                                                 \
    } while (0)

#define FILL(k) uint64_t window##k = press_load64(data + (size_t)(at##k >> 3)) >> (at##k & 7)

/*
 * Four full lanes in step: the look-ups of one hide the latency of another's. Stops each shortly before its end.
 * `at`: bit of each lane; `done`: symbols of each.
 */
static void take_four_lanes(const uint8_t *data, size_t size, const press_lookup *lookup, uint64_t *at, size_t *done,
                            uint8_t *symbols)
{
    const uint64_t *many = lookup->many;
    const uint64_t mask = ((uint64_t)1 << lookup->many_bits) - 1;
    const uint64_t last = 8 * (uint64_t)(size - 8);     /* eight bytes can be read from here */
    const size_t most = PRESS_LANE_SYMBOLS - 4 * 7 - 8; /* the stores of a turn stay inside the lane */
    uint64_t at0 = at[0], at1 = at[1], at2 = at[2], at3 = at[3];
    uint8_t *out0 = symbols, *out1 = out0 + PRESS_LANE_SYMBOLS, *out2 = out1 + PRESS_LANE_SYMBOLS,
            *out3 = out2 + PRESS_LANE_SYMBOLS;
    uint8_t *const end0 = out0 + most, *const end1 = out1 + most, *const end2 = out2 + most,
                   *const end3 = out3 + most;

    while (out0 < end0 && out1 < end1 && out2 < end2 && out3 < end3 && at0 <= last && at1 <= last && at2 <= last &&
           at3 <= last) {
        FILL(0);
        FILL(1);
        FILL(2);
        FILL(3);
        STEP(0); STEP(1); STEP(2); STEP(3); /* four look-ups of at most 12 bits: 57 are there */
        STEP(0); STEP(1); STEP(2); STEP(3);
        STEP(0); STEP(1); STEP(2); STEP(3);
        STEP(0); STEP(1); STEP(2); STEP(3);
    }

    at[0] = at0;
    at[1] = at1;
    at[2] = at2;
    at[3] = at3;
    done[0] = (size_t)(out0 - symbols);
    done[1] = (size_t)(out1 - symbols) - PRESS_LANE_SYMBOLS;
    done[2] = (size_t)(out2 - symbols) - 2 * PRESS_LANE_SYMBOLS;
    done[3] = (size_t)(out3 - symbols) - 3 * PRESS_LANE_SYMBOLS;
}
#endif

/* Lanes from `start` on, whose lengths in bytes are in the directory; the caller has checked that they fit. */
static press_status take_lanes(press_stream *stream, const press_lookup *lookup, const uint8_t *directory,
                               size_t count, int wide, void *symbols)
{
    size_t n_lanes = (count + PRESS_LANE_SYMBOLS - 1) / PRESS_LANE_SYMBOLS, lane = 0, k;
    uint64_t start = stream->position;

    while (lane < n_lanes) {
        size_t together = 1, done[4] = {0, 0, 0, 0};
        uint64_t at[4] = {start, 0, 0, 0};

#ifndef PRESS_SMALL
        if (lookup->many_bits && !wide && (lane + 4) * PRESS_LANE_SYMBOLS <= count && stream->size >= 8) {
            together = 4;
            for (k = 1; k < 4; k++) {
                at[k] = at[k - 1] + 8 * (uint64_t)press_load16(directory + 2 * (lane + k - 1));
            }
            take_four_lanes(stream->data, stream->size, lookup, at, done,
                            (uint8_t *)symbols + lane * PRESS_LANE_SYMBOLS);
        }
#endif
        for (k = 0; k < together; k++, lane++) {
            size_t first = lane * PRESS_LANE_SYMBOLS;
            size_t n = count - first < PRESS_LANE_SYMBOLS ? count - first : PRESS_LANE_SYMBOLS;

            stream->position = at[k];
            (wide ? take_words_of : take_bytes_of)(stream, lookup, done[k], n,
                                                   (uint8_t *)symbols + (wide ? 2 * first : first));
            start += 8 * (uint64_t)press_load16(directory + 2 * lane);
            if (((stream->position + 7) & ~(uint64_t)7) != start) {
                return PRESS_BAD_LANE;
            }
            if (press_align(stream)) {
                return PRESS_PADDING;
            }
        }
    }
    return PRESS_OK;
}

press_status press_take_run(press_stream *stream, const press_lookup *lookup, size_t count, int wide, void *symbols)
{
    const press_code *code = &lookup->code;
    size_t n_lanes = (count + PRESS_LANE_SYMBOLS - 1) / PRESS_LANE_SYMBOLS, lane;
    const uint8_t *directory;
    uint64_t end;
    press_status status;

    if (count == 0) {
        return PRESS_OK;
    }
    if (code->used < 2) {
        if (!code->used) {
            return PRESS_EMPTY_TABLE;
        }
        if (!wide) {
            memset(symbols, code->only, count);
        }
        for (lane = 0; wide && lane < count; lane++) {
            ((uint16_t *)symbols)[lane] = code->only;
        }
        return PRESS_OK;
    }
    if (count <= PRESS_LANE_SYMBOLS) {
        return press_take_symbols(stream, lookup, count, wide, symbols);
    }

    status = press_take_bytes(stream, 2 * n_lanes, &directory);
    if (status) {
        return status;
    }
    end = stream->position >> 3;
    for (lane = 0; lane < n_lanes; lane++) {
        end += press_load16(directory + 2 * lane);
    }
    if (end > stream->size) {
        return PRESS_ENDS_EARLY;
    }
    return take_lanes(stream, lookup, directory, count, wide, symbols);
}

press_status press_take_levels(press_stream *stream, const press_lookup *lookup, size_t count, int16_t *levels)
{
    const int16_t lowest = (int16_t)lookup->code.lowest;
    uint8_t *narrow = (uint8_t *)levels + count; /* bytes in the upper half are spread from the front on */
    press_status status;
    size_t i;

    if (lookup->code.n > 256) {
        uint16_t *symbols = (uint16_t *)(void *)levels;

        status = press_take_run(stream, lookup, count, 1, symbols);
        for (i = 0; status == PRESS_OK && i < count; i++) {
            levels[i] = (int16_t)(symbols[i] + lowest);
        }
        return status;
    }

    status = press_take_run(stream, lookup, count, 0, narrow);
    for (i = 0; status == PRESS_OK && i < count; i += 256) {
        uint8_t some[256];
        size_t n = count - i < 256 ? count - i : 256, k;

        memcpy(some, narrow + i, n);
        for (k = 0; k < n; k++) {
            levels[i + k] = (int16_t)(some[k] + lowest);
        }
    }
    return status;
}

press_status press_decode_run(const uint8_t *stream, size_t size, uint64_t *position, const press_code *code,
                              void *lookups, size_t lookups_size, size_t count, int wide, void *symbols)
{
    press_stream bits;
    press_lookup lookup;
    press_status status;
    int many = !wide && count >= 4 * PRESS_LANE_SYMBOLS && lookups_size >= press_lookup_size(code, 1);

    if (lookups_size < press_lookup_size(code, many)) {
        return PRESS_SMALL_BUFFER;
    }
    if ((!wide && code->n > 256) || *position > 8 * (uint64_t)size) {
        return PRESS_BAD_ARGUMENT;
    }
    bits.data = stream;
    bits.size = size;
    bits.position = *position;
    press_make_lookup(&lookup, code, lookups, many);
    status = press_take_run(&bits, &lookup, count, wide, symbols);
    *position = bits.position;
    return status;
}
