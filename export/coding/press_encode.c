/* Writing: levels of codes, counts of symbols, and slabs in the Huffman encodings; FORMAT.md, "Encodings". */

#include "press_internal.h"

#ifndef PRESS_NO_ENCODER

#define LEVELS 513 /* -256 .. 256 */
#define AT_ONCE 256

void press_levels(const uint8_t *codes, const uint8_t *support, int is_signed, const int16_t *centres,
                  size_t n_centres, size_t inner, size_t start, size_t count, int16_t *levels)
{
    size_t done = 0, i;

    if (is_signed) {
        for (i = 0; i < count; i++) {
            levels[i] = (int8_t)codes[i];
        }
        return;
    }
    while (done < count) {
        size_t at = start + done, n = n_centres > 1 ? inner - at % inner : count - done;
        const int centre = centres[n_centres > 1 ? at / inner % n_centres : 0];

        n = n < count - done ? n : count - done;
        for (i = done; i < done + n; i++) {
            int level = codes[i] - centre;

            levels[i] = (int16_t)(support ? (level + (level >= 0)) & -(int)(support[i] != 0) : level);
        }
        done += n;
    }
}

/* ---- Counting ---- */

void press_count_levels(const int16_t *levels, size_t count, uint64_t *counts)
{
    uint32_t parts[4][LEVELS]; /* four in turns: most levels are the same, and an addition waits for the one before */
    size_t done, i, k;

    for (done = 0; done < count; done += i) {
        size_t n = count - done < (size_t)1 << 30 ? count - done : (size_t)1 << 30;
        const int16_t *some = levels + done;

        memset(parts, 0, sizeof parts);
        for (i = 0; i + 4 <= n; i += 4) {
            parts[0][some[i] + 256]++;
            parts[1][some[i + 1] + 256]++;
            parts[2][some[i + 2] + 256]++;
            parts[3][some[i + 3] + 256]++;
        }
        for (; i < n; i++) {
            parts[0][some[i] + 256]++;
        }
        for (k = 0; k < LEVELS; k++) {
            counts[k] += (uint64_t)parts[0][k] + parts[1][k] + parts[2][k] + parts[3][k];
        }
    }
}

#define SHORT_GAPS 1024

static void add_gap(uint64_t gap, uint64_t times, uint64_t *counts)
{
    unsigned g;

    for (g = 1; g <= 8; g++) {
        const unsigned filler = (1u << g) - 1;
        uint64_t *symbols = counts + 256 * (g - 1);

        symbols[filler] += times * (gap / filler);
        symbols[gap % filler] += times;
    }
}

void press_count_gaps(const int16_t *levels, size_t count, uint64_t *counts)
{
    uint32_t gaps[SHORT_GAPS];
    size_t start, i, next = 0; /* behind the last nonzero level */

    memset(gaps, 0, sizeof gaps);
    for (start = 0; start < count; start += AT_ONCE) {
        size_t found[AT_ONCE], n = 0, n_here = count - start < AT_ONCE ? count - start : AT_ONCE;

        /* without a branch: which levels are zero is a coin toss */
        for (i = 0; i < n_here; i++) {
            found[n] = start + i;
            n += levels[start + i] != 0;
        }
        for (i = 0; i < n; i++) {
            size_t gap = found[i] - next;

            if (gap < SHORT_GAPS && gaps[gap] < 0xFFFFFFFFu) {
                gaps[gap]++;
            } else {
                add_gap(gap, 1, counts);
            }
            next = found[i] + 1;
        }
    }
    for (i = 0; i < SHORT_GAPS; i++) {
        if (gaps[i]) {
            add_gap(i, gaps[i], counts);
        }
    }
}

/* 0 for zero, 1 for negative, 2 for positive. */
static unsigned sign_class(int level)
{
    return 2u * (level > 0) + (level < 0);
}

static unsigned context_of(const int16_t *kernel, unsigned tap, unsigned width, unsigned column)
{
    return (column ? 3 * sign_class(kernel[tap - 1]) : 0) + (tap >= width ? sign_class(kernel[tap - width]) : 0);
}

/* Kernel k, filled up with zeros in `filled` if it is cut off. */
static const int16_t *kernel_at(const int16_t *levels, size_t count, size_t k, unsigned taps, int16_t *filled)
{
    size_t first = k * taps;

    if (first + taps <= count) {
        return levels + first;
    }
    memset(filled, 0, 9 * sizeof filled[0]);
    memcpy(filled, levels + first, sizeof filled[0] * (count - first));
    return filled;
}

static unsigned lowest_bit(unsigned value)
{
#if defined(__GNUC__)
    return (unsigned)__builtin_ctz(value);
#else
    unsigned bit = 0;

    while (!(value >> bit & 1)) {
        bit++;
    }
    return bit;
#endif
}

void press_count_kernels(const int16_t *levels, size_t count, unsigned taps, unsigned width, unsigned contexts,
                         uint64_t *masks, uint64_t *counts)
{
    size_t n = (count + taps - 1) / taps, k;
    uint8_t columns[9];
    int16_t filled[9];
    unsigned tap;

    for (tap = 0; tap < taps; tap++) {
        columns[tap] = (uint8_t)(tap % width);
    }
    for (k = 0; k < n; k++) {
        const int16_t *kernel = kernel_at(levels, count, k, taps, filled);
        unsigned mask = 0, left;

        for (tap = 0; tap < taps; tap++) {
            mask |= (unsigned)(kernel[tap] != 0) << tap;
        }
        masks[mask]++;
        for (left = mask; left; left &= left - 1) {
            unsigned context;

            tap = lowest_bit(left);
            context = contexts > 1 ? context_of(kernel, tap, width, columns[tap]) : 0;
            counts[context * LEVELS + (unsigned)(kernel[tap] + 256)]++;
        }
    }
}

/* ---- Writing runs ---- */

void press_make_codewords(const uint8_t *lengths, size_t n, uint32_t *words)
{
    uint32_t next[PRESS_MAX_BITS + 2];
    uint32_t counts[PRESS_MAX_BITS + 1];
    size_t symbol;
    unsigned length, bit;

    memset(counts, 0, sizeof counts);
    for (symbol = 0; symbol < n; symbol++) {
        counts[lengths[symbol] & 15]++;
    }
    counts[0] = 0;
    next[0] = next[1] = 0;
    for (length = 1; length <= PRESS_MAX_BITS; length++) {
        next[length + 1] = (next[length] + counts[length]) << 1;
    }
    for (symbol = 0; symbol < n; symbol++) {
        uint32_t backward = 0, codeword;

        length = lengths[symbol] & 15;
        codeword = length ? next[length]++ : 0;
        for (bit = 0; bit < length; bit++) {
            backward |= (codeword >> bit & 1) << (length - 1 - bit);
        }
        words[symbol] = backward | (uint32_t)length << 16;
    }
}

static void align(press_writer *writer)
{
    writer->position = (writer->position + 7) & ~(uint64_t)7;
}

/* The bits of the byte that the stream stands in. */
static uint64_t begun(const press_writer *writer)
{
    unsigned used = (unsigned)(writer->position & 7);

    return used ? writer->data[(size_t)(writer->position >> 3)] & ((1u << used) - 1) : 0;
}

/* A codeword and its length; *bad is set where there is none. */
static inline uint64_t word_of(const press_codewords *code, uint32_t symbol, unsigned *length, int *bad)
{
    uint32_t word = symbol < code->n ? code->words[symbol] : 0;

    *length = word >> 16;
    *bad |= word < 0x10000u;
    return word & 0xFFFFu;
}

/* Bits on their way: what is below a byte waits for more. */
typedef struct bit_stream {
    uint8_t *data;
    size_t at;
    uint64_t pending;
    unsigned n_pending;
} bit_stream;

/* At most 57 bits; eight bytes are written, of which the next call writes again what was not full. */
static inline void put_bits(bit_stream *stream, uint64_t bits, unsigned n_bits)
{
    stream->pending |= bits << stream->n_pending;
    stream->n_pending += n_bits;
    press_store64(stream->data + stream->at, stream->pending);
    stream->at += stream->n_pending >> 3;
    stream->pending >>= stream->n_pending & 56u;
    stream->n_pending &= 7;
}

/* Four codewords, joined before they are shifted to where they go, so that the processor can do several at once. */
static inline void put_four(bit_stream *stream, const uint64_t words[4], const unsigned lengths[4])
{
    uint64_t first = words[0] | words[1] << lengths[0], second = words[2] | words[3] << lengths[2];
    unsigned n_first = lengths[0] + lengths[1], n_second = lengths[2] + lengths[3];

    if (n_first + n_second > 57) {
        put_bits(stream, first, n_first);
        put_bits(stream, second, n_second);
    } else {
        put_bits(stream, first | second << n_first, n_first + n_second);
    }
}

static inline press_status opened(const press_writer *writer, size_t count, bit_stream *stream)
{
    stream->data = writer->data;
    stream->at = (size_t)(writer->position >> 3);
    if (writer->capacity < stream->at || writer->capacity - stream->at < 2 * count + 16) {
        return PRESS_SMALL_BUFFER;
    }
    stream->pending = begun(writer);
    stream->n_pending = (unsigned)(writer->position & 7);
    return PRESS_OK;
}

static void closed(press_writer *writer, const bit_stream *stream)
{
    writer->position = 8 * (uint64_t)stream->at + stream->n_pending;
}

/* At most a lane of levels, less the lowest. */
static press_status put_levels(press_writer *writer, const press_codewords *given, const int16_t *levels, size_t count)
{
    const press_codewords code = *given; /* a copy: bytes that are written cannot change it */
    uint64_t words[4];
    unsigned lengths[4], k;
    bit_stream stream;
    size_t i = 0;
    int bad = 0;
    press_status status = opened(writer, count, &stream);

    if (status) {
        return status;
    }
    for (; i + 4 <= count; i += 4) {
        for (k = 0; k < 4; k++) {
            words[k] = word_of(&code, (uint32_t)(levels[i + k] - code.lowest), &lengths[k], &bad);
        }
        put_four(&stream, words, lengths);
    }
    for (; i < count; i++) {
        words[0] = word_of(&code, (uint32_t)(levels[i] - code.lowest), lengths, &bad);
        put_bits(&stream, words[0], lengths[0]);
    }
    closed(writer, &stream);
    return bad ? PRESS_BAD_CODE : PRESS_OK;
}

/* At most a lane of bytes: a table for all of them needs no look at its end, and has a bit where there is a codeword. */
static press_status put_bytes(press_writer *writer, const press_codewords *code, const uint8_t *bytes, size_t count)
{
    uint32_t table[256], all = 0x8000u;
    uint64_t words[4];
    unsigned lengths[4], k;
    bit_stream stream;
    size_t i = 0;
    press_status status = opened(writer, count, &stream);

    if (status) {
        return status;
    }
    memset(table, 0, sizeof table);
    for (k = 0; k < 256 && k < code->n; k++) {
        table[k] = code->words[k] >> 16 ? code->words[k] | 0x8000u : 0;
    }
    for (; i + 4 <= count; i += 4) {
        for (k = 0; k < 4; k++) {
            uint32_t word = table[bytes[i + k]];

            all &= word;
            words[k] = word & 0x7FFFu;
            lengths[k] = word >> 16;
        }
        put_four(&stream, words, lengths);
    }
    for (; i < count; i++) {
        uint32_t word = table[bytes[i]];

        all &= word;
        put_bits(&stream, word & 0x7FFFu, word >> 16);
    }
    closed(writer, &stream);
    return all ? PRESS_OK : PRESS_BAD_CODE;
}

static press_status put_part(press_writer *writer, const press_codewords *code, const int16_t *levels,
                             const uint8_t *bytes, size_t first, size_t count)
{
    return levels ? put_levels(writer, code, levels + first, count) : put_bytes(writer, code, bytes + first, count);
}

static press_status put_run(press_writer *writer, const press_codewords *code, const int16_t *levels,
                            const uint8_t *bytes, size_t count)
{
    size_t n_lanes = (count + PRESS_LANE_SYMBOLS - 1) / PRESS_LANE_SYMBOLS, directory, lane, at;

    if (code->silent || !count) {
        return PRESS_OK;
    }
    if (count <= PRESS_LANE_SYMBOLS) {
        return put_part(writer, code, levels, bytes, 0, count);
    }

    align(writer);
    directory = (size_t)(writer->position >> 3);
    if (writer->capacity < directory || writer->capacity - directory < 2 * n_lanes) {
        return PRESS_SMALL_BUFFER;
    }
    writer->position += 16 * (uint64_t)n_lanes;
    for (lane = 0; lane < n_lanes; lane++) {
        size_t first = lane * PRESS_LANE_SYMBOLS, left = count - first;
        press_status status;

        at = (size_t)(writer->position >> 3);
        status = put_part(writer, code, levels, bytes, first, left < PRESS_LANE_SYMBOLS ? left : PRESS_LANE_SYMBOLS);
        if (status) {
            return status;
        }
        align(writer);
        at = (size_t)(writer->position >> 3) - at;
        writer->data[directory + 2 * lane] = (uint8_t)at;
        writer->data[directory + 2 * lane + 1] = (uint8_t)(at >> 8);
    }
    return PRESS_OK;
}

press_status press_write_run(press_writer *writer, const press_codewords *code, const int16_t *levels, size_t count)
{
    return put_run(writer, code, levels, NULL, count);
}

press_status press_write_symbols(press_writer *writer, const press_codewords *code, const uint8_t *symbols,
                                 size_t count)
{
    return put_run(writer, code, NULL, symbols, count);
}

/* ---- Slabs ---- */

press_status press_write_bitmap(press_writer *writer, const press_codewords *code, const int16_t *levels,
                                size_t count, void *scratch)
{
    int16_t *values = (int16_t *)scratch;
    size_t at, n = 0, i;

    align(writer);
    at = (size_t)(writer->position >> 3);
    if (writer->capacity < at || writer->capacity - at < (count + 7) / 8) {
        return PRESS_SMALL_BUFFER;
    }
    memset(writer->data + at, 0, (count + 7) / 8);
    for (i = 0; i < count; i++) {
        int kept = levels[i] != 0;

        writer->data[at + (i >> 3)] = (uint8_t)(writer->data[at + (i >> 3)] | kept << (i & 7));
        values[n] = levels[i];
        n += (size_t)kept;
    }
    writer->position = 8 * ((uint64_t)at + (count + 7) / 8);
    return put_run(writer, code, values, NULL, n);
}

press_status press_write_gaps(press_writer *writer, unsigned gap_bits, const press_codewords *gaps,
                              const press_codewords *code, const int16_t *levels, size_t count, void *scratch)
{
    const size_t filler = ((size_t)1 << gap_bits) - 1;
    int16_t *values = (int16_t *)scratch;
    uint8_t *symbols = (uint8_t *)(values + count);
    size_t n = 0, n_gaps = 0, gap = 0, at, i, left;
    press_status status;

    for (i = 0; i < count; i++) {
        if (!levels[i]) {
            gap++;
            continue;
        }
        for (; gap >= filler; gap -= filler) {
            symbols[n_gaps++] = (uint8_t)(filler - (size_t)gaps->lowest);
        }
        symbols[n_gaps++] = (uint8_t)(gap - (size_t)gaps->lowest);
        values[n++] = levels[i];
        gap = 0;
    }

    align(writer);
    at = (size_t)(writer->position >> 3);
    if (writer->capacity < at || writer->capacity - at < 10) {
        return PRESS_SMALL_BUFFER;
    }
    for (left = n_gaps; left > 127; left >>= 7) {
        writer->data[at++] = (uint8_t)((left & 127) | 128);
    }
    writer->data[at++] = (uint8_t)left;
    writer->position = 8 * (uint64_t)at;
    status = put_run(writer, gaps, NULL, symbols, n_gaps);
    return status ? status : put_run(writer, code, values, NULL, n);
}

/* Scratch: six bytes for each kernel. */
press_status press_write_kernels(press_writer *writer, unsigned taps, unsigned width, unsigned contexts,
                                 const press_codewords *masks, const press_codewords *codes, const int16_t *levels,
                                 size_t count, void *scratch)
{
    size_t n = (count + taps - 1) / taps, k;
    int16_t *all_masks = (int16_t *)scratch, *values = all_masks + n;
    uint8_t *context = (uint8_t *)(values + n);
    int16_t filled[9];
    unsigned tap;
    press_status status;

    for (k = 0; k < n; k++) {
        const int16_t *kernel = kernel_at(levels, count, k, taps, filled);
        unsigned mask = 0;

        for (tap = 0; tap < taps; tap++) {
            mask |= (unsigned)(kernel[tap] != 0) << tap;
        }
        all_masks[k] = (int16_t)mask;
    }
    status = put_run(writer, masks, all_masks, NULL, n);

    for (tap = 0; status == PRESS_OK && tap < taps; tap++) {
        size_t counts[9] = {0}, next[10] = {0};
        unsigned c;

        for (k = 0; k < n; k++) {
            context[k] = 255;
            if (all_masks[k] >> tap & 1) {
                const int16_t *kernel = kernel_at(levels, count, k, taps, filled);

                context[k] = (uint8_t)(contexts > 1 ? context_of(kernel, tap, width, tap % width) : 0);
                counts[context[k]]++;
            }
        }
        for (c = 0; c < 9; c++) {
            next[c + 1] = next[c] + counts[c];
        }
        for (k = 0; k < n; k++) {
            if (context[k] != 255) {
                values[next[context[k]]++] = levels[k * taps + tap];
            }
        }
        for (c = 0; status == PRESS_OK && c < contexts; c++) {
            status = put_run(writer, &codes[c], values + next[c] - counts[c], NULL, counts[c]);
        }
    }
    return status;
}

press_status press_write_packed(press_writer *writer, int lowest, unsigned bits, const int16_t *levels, size_t count)
{
    size_t at = (size_t)(writer->position >> 3), i;
    uint64_t pending = begun(writer);
    unsigned n_pending = (unsigned)(writer->position & 7);

    if (bits > 16 || writer->capacity < at || writer->capacity - at < 2 * count + 16) {
        return bits > 16 ? PRESS_BAD_ARGUMENT : PRESS_SMALL_BUFFER;
    }
    for (i = 0; i < count; i++) {
        uint32_t value = (uint32_t)(levels[i] - lowest);

        if (value >> bits) {
            return PRESS_BAD_CODE;
        }
        pending |= (uint64_t)value << n_pending;
        n_pending += bits;
        while (n_pending >= 8) {
            writer->data[at++] = (uint8_t)pending;
            pending >>= 8;
            n_pending -= 8;
        }
    }
    if (n_pending) {
        writer->data[at] = (uint8_t)pending;
    }
    writer->position = 8 * (uint64_t)at + n_pending;
    return PRESS_OK;
}
#else
typedef int press_no_encoder;
#endif
