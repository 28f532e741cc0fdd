/* Levels read: of fixed width, Huffman coded in slabs, and as version 1.0 wrote them; FORMAT.md, "Encodings". */

#include "press_internal.h"

#define AT_ONCE 256

/* ---- Fixed width ---- */

/* Numbers of `bits` bits (0 to 16) from bit *position on, the lowest one added. */
static press_status take_packed(press_stream *stream, unsigned bits, int lowest, size_t count, int16_t *levels)
{
    uint64_t position = stream->position;
    const unsigned mask = (1u << bits) - 1;
    size_t i;

    if ((uint64_t)bits * count > 8 * (uint64_t)stream->size - position) {
        return PRESS_ENDS_EARLY;
    }
    for (i = 0; i < count; i++, position += bits) {
        size_t at = (size_t)(position >> 3);
        uint32_t window = 0;

        if (at + 4 <= stream->size) {
            window = press_load32(stream->data + at);
        } else if (bits) {
            window = (uint32_t)press_load64_within(stream->data, stream->size, at);
        }
        levels[i] = (int16_t)((int)(window >> (position & 7) & mask) + lowest);
    }
    stream->position = position;
    return PRESS_OK;
}

static unsigned bits_for(int n)
{
    unsigned bits = 0;

    while (n >> bits) {
        bits++;
    }
    return bits;
}

/* The bytes left of a blob as a stream. */
static press_stream rest_of(press_cursor *cursor)
{
    press_stream stream = {NULL, 0, 0};

    stream.size = cursor->size - cursor->at;
    stream.data = press_take(cursor, stream.size, &cursor->parts.payload);
    return stream;
}

press_status press_decode_packed(press_cursor *cursor, const press_sink *sink, int16_t *levels)
{
    press_stream stream = rest_of(cursor);
    size_t start, n;
    int low, high;

    press_sink_bounds(sink, &low, &high);
    for (start = 0; start < sink->grid->elements; start += n) {
        press_status status;

        n = sink->grid->elements - start < AT_ONCE ? sink->grid->elements - start : AT_ONCE;
        status = take_packed(&stream, bits_for(high - low), low, n, levels);
        if (status == PRESS_OK) {
            status = press_put_levels(sink, start, n, levels);
        }
        if (status) {
            return status;
        }
    }
    return press_finish(&stream);
}

/* ---- Gaps, bitmaps ---- */

/*
 * Spread nonzero levels to where the gaps say; all else becomes 0. They lie at the end of the memory of all levels: in
 * positions that fit, none is overwritten before it has been read.
 */
static press_status spread_gaps(const uint8_t *gaps, size_t n_gaps, unsigned filler, size_t n_values, size_t count,
                                int16_t *levels)
{
    size_t at = 0, next = count - n_values, k;

    for (k = 0; k < n_gaps; k++) {
        size_t gap = gaps[k];

        if (gap > next - at) {
            return PRESS_BAD_GAPS;
        }
        memset(levels + at, 0, sizeof levels[0] * gap);
        at += gap;
        if (gap != filler) {
            levels[at++] = levels[next++];
        }
    }
    memset(levels + at, 0, sizeof levels[0] * (count - at));
    return PRESS_OK;
}

static size_t count_bytes(const uint8_t *bytes, size_t count, unsigned byte)
{
    size_t n = 0, i;

    for (i = 0; i < count; i++) {
        n += bytes[i] == byte;
    }
    return n;
}

/* Scratch: a byte for each gap, at most one for each element. */
static press_status take_gaps(press_stream *stream, unsigned gap_bits, const press_lookup *lookups, size_t count,
                              void *scratch, int16_t *levels)
{
    const unsigned filler = (1u << gap_bits) - 1;
    uint8_t *gaps = (uint8_t *)scratch;
    uint64_t n;
    size_t i, n_gaps, n_values;
    press_status status = press_take_varint(stream, &n);

    if (status) {
        return status;
    }
    if (n > count) {
        return PRESS_BAD_GAPS;
    }
    n_gaps = (size_t)n;
    status = press_take_run(stream, &lookups[0], n_gaps, 0, gaps);
    if (status) {
        return status;
    }

    for (i = 0; lookups[0].code.lowest && i < n_gaps; i++) {
        gaps[i] = (uint8_t)(gaps[i] + lookups[0].code.lowest);
    }
    if (n_gaps && gaps[n_gaps - 1] == filler) {
        return PRESS_BAD_GAPS;
    }
    n_values = n_gaps - count_bytes(gaps, n_gaps, filler);
    status = press_take_levels(stream, &lookups[1], n_values, levels + count - n_values);
    return status ? status : spread_gaps(gaps, n_gaps, filler, n_values, count, levels);
}

static unsigned ones(unsigned byte)
{
    byte = byte - (byte >> 1 & 0x55u);
    byte = (byte & 0x33u) + (byte >> 2 & 0x33u);
    return (byte + (byte >> 4)) & 15u;
}

/* The nonzero levels lie at the end of all, and are spread from the front on, as those of gaps. */
static press_status take_bitmap(press_stream *stream, const press_lookup *lookup, size_t count, int16_t *levels)
{
    const uint8_t *bitmap;
    size_t n_values = 0, next, i;
    press_status status = press_take_bytes(stream, (count + 7) / 8, &bitmap);

    if (status) {
        return status;
    }
    if (count % 8 && bitmap[count / 8] >> count % 8) {
        return PRESS_PADDING;
    }
    for (i = 0; i < (count + 7) / 8; i++) {
        n_values += ones(bitmap[i]);
    }
    next = count - n_values;
    status = press_take_levels(stream, lookup, n_values, levels + next);

    /* without a branch: which elements are zero is a coin toss */
    for (i = 0; status == PRESS_OK && i < count; i++) {
        int kept = bitmap[i >> 3] >> (i & 7) & 1;

        levels[i] = (int16_t)(levels[next < count ? next : i] & -kept);
        next += (size_t)kept;
    }
    return status;
}

/* ---- Kernel masks ---- */

/* 0 for zero, 1 for negative, 2 for positive. */
static unsigned sign_class(int level)
{
    return 2u * (level > 0) + (level < 0);
}

typedef struct kernels {
    unsigned taps, width, contexts;
    size_t n;             /* kernels */
    size_t count;         /* elements: the last kernel may be cut off */
    int16_t *levels;
    uint16_t *masks;
    uint16_t *symbols;
    uint32_t *order;      /* kernels with a level at this tap, context by context */
    uint8_t *context;     /* of each kernel at this tap */
} kernels;

/* Contexts of the levels at a tap, and how many have each. */
static void find_contexts(const kernels *all, unsigned tap, size_t *counts)
{
    size_t k;

    memset(counts, 0, PRESS_KERNEL_CONTEXTS * sizeof counts[0]);
    for (k = 0; k < all->n; k++) {
        const int16_t *kernel = all->levels + k * all->taps;
        unsigned context = PRESS_NO_CONTEXT;

        if (all->masks[k] >> tap & 1) {
            context = 0;
            if (all->contexts > 1) {
                context += tap % all->width ? 3 * sign_class(kernel[tap - 1]) : 0;
                context += tap >= all->width ? sign_class(kernel[tap - all->width]) : 0;
            }
            counts[context]++;
        }
        all->context[k] = (uint8_t)context;
    }
}

void press_sort_kernels(const uint8_t *contexts, size_t n, const size_t *counts, uint32_t *order)
{
    size_t next[PRESS_KERNEL_CONTEXTS], k;
    unsigned c;

    next[0] = 0;
    for (c = 1; c < PRESS_KERNEL_CONTEXTS; c++) {
        next[c] = next[c - 1] + counts[c - 1];
    }
    for (k = 0; k < n; k++) {
        if (contexts[k] != PRESS_NO_CONTEXT) {
            order[next[contexts[k]]++] = (uint32_t)k;
        }
    }
}

static press_status take_tap(press_stream *stream, const kernels *all, const press_lookup *lookups, unsigned tap)
{
    size_t counts[PRESS_KERNEL_CONTEXTS], first = 0, i;
    unsigned c;

    find_contexts(all, tap, counts);
    press_sort_kernels(all->context, all->n, counts, all->order);
    for (c = 0; c < all->contexts; c++) {
        const int lowest = lookups[c].code.lowest;
        press_status status = press_take_run(stream, &lookups[c], counts[c], 1, all->symbols);

        if (status) {
            return status;
        }
        for (i = 0; i < counts[c]; i++) {
            all->levels[all->order[first + i] * (size_t)all->taps + tap] = (int16_t)(all->symbols[i] + lowest);
        }
        first += counts[c];
    }
    return PRESS_OK;
}

/* Scratch: nine bytes for each kernel. */
static press_status take_kernels(press_stream *stream, const uint8_t *parameters, const press_lookup *lookups,
                                 size_t count, void *scratch, int16_t *levels)
{
    kernels all;
    unsigned tap;
    size_t k, surplus;
    press_status status;

    all.taps = parameters[0];
    all.width = parameters[1];
    all.contexts = parameters[2];
    all.n = (count + all.taps - 1) / all.taps;
    all.count = count;
    all.levels = levels;
    all.order = (uint32_t *)scratch;
    all.masks = (uint16_t *)(all.order + all.n);
    all.symbols = all.masks + all.n;
    all.context = (uint8_t *)(all.symbols + all.n);

    status = press_take_run(stream, &lookups[0], all.n, 1, all.masks);
    for (k = 0; status == PRESS_OK && k < all.n; k++) {
        all.masks[k] = (uint16_t)(all.masks[k] + lookups[0].code.lowest);
    }
    surplus = all.n * all.taps - count;
    if (status == PRESS_OK && surplus && all.masks[all.n - 1] >> (all.taps - surplus)) {
        status = PRESS_BAD_KERNELS;
    }
    memset(levels, 0, sizeof levels[0] * count);
    for (tap = 0; status == PRESS_OK && tap < all.taps; tap++) {
        status = take_tap(stream, &all, lookups + 1, tap);
    }
    return status;
}

press_status press_decode_slab(press_stream *stream, unsigned encoding, const uint8_t *parameters,
                               const press_lookup *lookups, size_t count, void *scratch, int16_t *levels)
{
    press_status status;

    switch (encoding) {
    case PRESS_HUFFMAN:
        status = press_take_levels(stream, &lookups[0], count, levels);
        break;
    case PRESS_CSR:
        status = take_gaps(stream, parameters[0], lookups, count, scratch, levels);
        break;
    case PRESS_BITMAP:
        status = take_bitmap(stream, &lookups[0], count, levels);
        break;
    case PRESS_SIGN_ROWS:
        status = press_take_sign_rows(stream, parameters, lookups, count, scratch, levels);
        break;
    default:
        status = take_kernels(stream, parameters, lookups, count, scratch, levels);
        break;
    }
    return status ? status : press_finish(stream);
}

/* ---- Version 1.0 ---- */

#ifndef PRESS_NO_1_0

/* Levels of symbols: codes without an offset to count from, 0 for an exact zero where there is a support. */
static press_status put_symbols(const press_sink *sink, size_t start, size_t count, int16_t *symbols)
{
    const press_grid *grid = sink->grid;
    const int has_support = (grid->flags & PRESS_SUPPORT) != 0;
    int low, high;
    size_t i, done, n;

    press_code_bounds(grid, &low, &high);
    for (i = 0; i < count; i++) {
        if (symbols[i] > high - low + has_support) {
            return PRESS_BAD_CODE;
        }
    }

    /* as levels, which differ by the centre of their channel */
    for (done = 0; done < count; done += n) {
        size_t at = start + done, left = grid->n_scales > 1 ? grid->inner - at % grid->inner : count;
        int centre = grid->offset ? press_centre(grid, grid->n_scales > 1 ? at / grid->inner % grid->channels : 0) : 0;

        n = left < count - done ? left : count - done;
        for (i = done; i < done + n; i++) {
            int code = symbols[i] + low - has_support;

            symbols[i] = (int16_t)(has_support && !symbols[i] ? 0 : code - centre + (has_support && code >= centre));
        }
    }
    return press_put_levels(sink, start, count, symbols);
}

static press_status take_old_lookup(press_cursor *cursor, unsigned alphabet, void *memory, press_lookup *lookup)
{
    const uint8_t *lengths = press_take(cursor, (alphabet + 1) / 2, &cursor->parts.tables);
    press_code code;
    press_status status;

    if (!lengths) {
        return PRESS_ENDS_EARLY;
    }
    code.lowest = 0;
    status = press_check_lengths(lengths, alphabet, &code);
    if (status == PRESS_OK) {
        press_make_lookup(lookup, &code, memory, 0);
    }
    return status;
}

/* All symbols of a stream without lanes, at most `most` at a time into `symbols`; empty streams of silent codes. */
static press_status take_old(press_stream *stream, const press_lookup *lookup, size_t count, int16_t *symbols)
{
    size_t i;

    if (count && !lookup->code.used) {
        return PRESS_EMPTY_TABLE;
    }
    if (lookup->code.used < 2) {
        for (i = 0; i < count; i++) {
            symbols[i] = (int16_t)lookup->code.only;
        }
        return PRESS_OK;
    }
    return press_take_symbols(stream, lookup, count, 1, (uint16_t *)(void *)symbols);
}

static press_status old_gaps(press_cursor *cursor, const press_sink *sink, uint8_t *scratch)
{
    const press_grid *grid = sink->grid;
    const uint8_t *head = press_take(cursor, 13, &cursor->parts.header);
    const int has_support = (grid->flags & PRESS_SUPPORT) != 0;
    press_lookup gap_lookup, value_lookup;
    press_stream gap_stream = {NULL, 0, 0}, value_stream;
    int16_t *value_at = (int16_t *)(void *)(scratch + 2 * PRESS_LOOKUP_BYTES);
    uint32_t n_values, n_gaps, gap, k, found = 0;
    size_t done = 0;
    unsigned filler;
    uint64_t at = 0;
    int low, high;
    press_status status;

    if (!head) {
        return PRESS_ENDS_EARLY;
    }
    n_values = press_load32(head);
    n_gaps = press_load32(head + 4);
    if (head[12] < 1 || head[12] > 8 || !(has_support || !grid->offset) || grid->elements == 0 ||
        n_values > n_gaps || n_gaps > grid->elements) {
        return PRESS_BAD_GAPS;
    }
    filler = (1u << head[12]) - 1;
    press_code_bounds(grid, &low, &high);
    status = take_old_lookup(cursor, filler + 1, scratch, &gap_lookup);
    if (status == PRESS_OK) {
        status = take_old_lookup(cursor, (unsigned)(high - low + 1), scratch + PRESS_LOOKUP_BYTES, &value_lookup);
    }
    if (status) {
        return status;
    }
    gap_stream.size = press_load32(head + 8);
    gap_stream.data = press_take(cursor, gap_stream.size, &cursor->parts.payload);
    if (!gap_stream.data) {
        return PRESS_ENDS_EARLY;
    }
    value_stream = rest_of(cursor);

    /* element by element: the stream of levels is read along with that of the gaps */
    for (gap = 0; gap < n_gaps; gap++) {
        int16_t symbol, value;

        status = take_old(&gap_stream, &gap_lookup, 1, &symbol);
        if (status) {
            return status;
        }
        at += (uint64_t)symbol;
        if ((unsigned)symbol == filler) {
            if (gap + 1 == n_gaps) {
                return PRESS_BAD_GAPS;
            }
            continue;
        }
        if (at >= grid->elements || found == n_values) {
            return PRESS_BAD_GAPS;
        }
        status = take_old(&value_stream, &value_lookup, 1, &value);
        if (status) {
            return status;
        }
        if (!has_support && value == -low) {
            return PRESS_STORED_ZERO;
        }

        /* zeros up to here, then the level */
        for (k = 0; done <= at;) {
            value_at[k++] = (int16_t)(done < at ? (has_support ? 0 : -low) : value + has_support);
            done++;
            if (k == AT_ONCE || done > at) {
                status = put_symbols(sink, done - k, k, value_at);
                if (status) {
                    return status;
                }
                k = 0;
            }
        }
        at++;
        found++;
    }
    if (found != n_values) {
        return PRESS_BAD_GAPS;
    }
    while (done < grid->elements) {
        for (k = 0; k < AT_ONCE && done + k < grid->elements; k++) {
            value_at[k] = (int16_t)(has_support ? 0 : -low);
        }
        status = put_symbols(sink, done, k, value_at);
        if (status) {
            return status;
        }
        done += k;
    }
    status = press_finish(&gap_stream);
    return status ? status : press_finish(&value_stream);
}

/* Scratch: two look-ups and 256 levels. */
press_status press_decode_old(press_cursor *cursor, const press_tensor *tensor, const press_sink *sink, void *scratch)
{
    const press_grid *grid = sink->grid;
    int16_t *symbols = (int16_t *)(void *)((uint8_t *)scratch + 2 * PRESS_LOOKUP_BYTES);
    press_lookup lookup;
    press_stream stream;
    size_t start, n;
    int low, high, n_symbols;
    press_status status = PRESS_OK;

    if (tensor->encoding == PRESS_CSR_1_0) {
        return old_gaps(cursor, sink, (uint8_t *)scratch);
    }
    press_code_bounds(grid, &low, &high);
    n_symbols = high - low + 1 + ((grid->flags & PRESS_SUPPORT) != 0);
    if (tensor->encoding == PRESS_HUFFMAN_1_0) {
        status = take_old_lookup(cursor, (unsigned)n_symbols, scratch, &lookup);
    }
    stream = rest_of(cursor);
    for (start = 0; status == PRESS_OK && start < grid->elements; start += n) {
        n = grid->elements - start < AT_ONCE ? grid->elements - start : AT_ONCE;
        status = tensor->encoding == PRESS_HUFFMAN_1_0
                     ? take_old(&stream, &lookup, n, symbols)
                     : take_packed(&stream, bits_for(n_symbols - 1), 0, n, symbols);
        if (status == PRESS_OK) {
            status = put_symbols(sink, start, n, symbols);
        }
    }
    return status ? status : press_finish(&stream);
}
#endif
