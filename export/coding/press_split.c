/*
 * Split values: a short integer for each element, coded as a level of a quantized tensor is, and the bits that no code
 * makes shorter, as they are; FORMAT.md, "Split values".
 */

#include "press_internal.h"

#define AT_ONCE 256 /* elements that are put together at once */
#define UNSIGNED_TYPES                                                                                                 \
    (1u << PRESS_UINT8 | 1u << PRESS_UINT16 | 1u << PRESS_UINT32 | 1u << PRESS_UINT64 | 1u << PRESS_UINT4 |           \
     1u << PRESS_UINT2)
#define SIGNED_TYPES                                                                                                   \
    (1u << PRESS_INT8 | 1u << PRESS_INT16 | 1u << PRESS_INT32 | 1u << PRESS_INT64 | 1u << PRESS_INT4 | 1u << PRESS_INT2)

enum { FLOATS = 0, INTEGERS = 1, TABLE = 2 };

/* Exponent and mantissa bits of a type; 0 where it is not split so. */
static int float_layout(unsigned type, unsigned *exponent_bits, unsigned *mantissa_bits)
{
    switch (type) {
    case PRESS_FLOAT:
        *exponent_bits = 8;
        *mantissa_bits = 23;
        return 1;
    case PRESS_FLOAT16:
        *exponent_bits = 5;
        *mantissa_bits = 10;
        return 1;
    case PRESS_BFLOAT16_TYPE:
        *exponent_bits = 8;
        *mantissa_bits = 7;
        return 1;
    case PRESS_DOUBLE:
        *exponent_bits = 11;
        *mantissa_bits = 52;
        return 1;
    default:
        return 0;
    }
}

static press_status take_floats(press_cursor *cursor, const press_tensor *tensor, press_split *split)
{
    const uint8_t *head = press_take(cursor, 4, &cursor->parts.header);
    press_stream stream = {NULL, 0, 0};
    unsigned exponent_bits, mantissa_bits;
    uint64_t n_bytes;
    press_status status;

    if (!head) {
        return PRESS_ENDS_EARLY;
    }
    if (!float_layout(tensor->type, &exponent_bits, &mantissa_bits)) {
        return PRESS_BAD_TYPE;
    }
    split->exponent = press_load16(head);
    split->most = head[2] + 1;
    split->least = -split->most;
    split->raw_bits = head[3];
    split->mantissa_bits = mantissa_bits;
    split->sign_bit = exponent_bits + mantissa_bits;
    if (split->raw_bits > mantissa_bits || (split->exponent + head[2]) >> exponent_bits) {
        return PRESS_BAD_SPLIT;
    }

    stream.data = cursor->data + cursor->at;
    stream.size = cursor->size - cursor->at;
    status = press_take_varint(&stream, &n_bytes);
    if (status) {
        return status;
    }
    (void)press_take(cursor, (size_t)(stream.position >> 3), &cursor->parts.header);
    if (n_bytes > cursor->size - cursor->at) {
        return PRESS_ENDS_EARLY;
    }
    split->raw.size = (size_t)n_bytes;
    split->raw.data = press_take(cursor, (size_t)n_bytes, &cursor->parts.payload);
    split->raw.position = 0;
    return PRESS_OK;
}

static press_status take_table(press_cursor *cursor, size_t width, press_split *split)
{
    const uint8_t *head = press_take(cursor, 4, &cursor->parts.header);
    int n, centre;

    if (!head) {
        return PRESS_ENDS_EARLY;
    }
    n = press_load16(head);
    centre = press_load16(head + 2);
    if (!n || centre >= n || centre > 256 || n - 1 - centre > 256) {
        return PRESS_BAD_SPLIT;
    }
    split->least = -centre;
    split->most = n - 1 - centre;
    split->table = press_take(cursor, width * (size_t)n, &cursor->parts.tables);
    return split->table ? PRESS_OK : PRESS_ENDS_EARLY;
}

static press_status take_integers(press_cursor *cursor, unsigned type, press_split *split)
{
    const uint8_t *head = press_take(cursor, 2, &cursor->parts.header);

    if (!head) {
        return PRESS_ENDS_EARLY;
    }
    if (!((SIGNED_TYPES | UNSIGNED_TYPES) >> type & 1)) {
        return PRESS_BAD_TYPE;
    }
    split->most = press_load16(head);
    split->least = -split->most;
    return split->most > 256 ? PRESS_BAD_SPLIT : PRESS_OK;
}

/* Levels that stand for an element: of integers, those that the type holds. */
static void find_allowed(press_split *split, size_t width)
{
    split->lowest = split->least;
    split->highest = split->most;
    if (split->kind == INTEGERS) {
        if (UNSIGNED_TYPES >> split->type & 1) {
            split->lowest = 0;
        } else if (width == 1 && split->lowest < -128) {
            split->lowest = -128;
        }
        if (width == 1 && split->highest > split->lowest + 255) {
            split->highest = split->lowest + 255;
        }
    }
}

press_status press_take_split(press_cursor *cursor, const press_tensor *tensor, press_tensor *inner,
                              press_split *split)
{
    const uint8_t *head = press_take(cursor, 2, &cursor->parts.header);
    const size_t width = press_type_size(tensor->type);
    press_status status = PRESS_BAD_SPLIT;

    if (!head) {
        return PRESS_ENDS_EARLY;
    }
    if (!width || tensor->type == PRESS_BOOL) {
        return PRESS_BAD_TYPE;
    }
    memset(split, 0, sizeof *split);
    split->type = tensor->type;
    split->kind = head[1];
    *inner = *tensor;
    inner->encoding = head[0];
    if (tensor->encoding == PRESS_SPLIT ? (head[0] < PRESS_PACKED || head[0] > PRESS_KERNEL_MASKS) &&
                                              head[0] != PRESS_SIGN_ROWS
                                        : head[0] != (tensor->encoding == PRESS_SPLIT_MIXED ? PRESS_MIXED
                                                                                            : PRESS_LINKED)) {
        return PRESS_BAD_SPLIT;
    }
    if (split->kind == FLOATS) {
        status = take_floats(cursor, tensor, split);
    } else if (split->kind == INTEGERS) {
        status = take_integers(cursor, tensor->type, split);
    } else if (split->kind == TABLE) {
        status = take_table(cursor, width, split);
    }
    find_allowed(split, width);
    return status;
}

/* The next bits of the mantissas. */
static press_status take_mantissa(press_split *split, uint64_t *value)
{
    press_stream *raw = &split->raw;
    const unsigned bits = split->raw_bits, used = (unsigned)(raw->position & 7);
    const size_t at = (size_t)(raw->position >> 3);

    if (raw->position + bits > 8 * (uint64_t)raw->size) {
        return PRESS_ENDS_EARLY;
    }
    *value = at + 8 <= raw->size ? press_load64(raw->data + at) : press_load64_within(raw->data, raw->size, at);
    *value = *value >> used & (((uint64_t)1 << bits) - 1); /* at most 52 bits and 7 before them */
    raw->position += bits;
    return PRESS_OK;
}

static press_status value_of(press_split *split, int level, uint64_t *value)
{
    uint64_t mantissa, exponent;
    press_status status;

    if (split->kind == INTEGERS) {
        *value = (uint64_t)(int64_t)level;
        return PRESS_OK;
    }
    *value = 0;
    if (!level) {
        return PRESS_OK;
    }
    exponent = (uint64_t)split->exponent + (uint64_t)(level < 0 ? -level : level) - 1;
    status = take_mantissa(split, &mantissa);
    mantissa <<= split->mantissa_bits - split->raw_bits;
    *value = (uint64_t)(level < 0) << split->sign_bit | exponent << split->mantissa_bits | mantissa;
    /* what is written as zero is one: there is one way to write each value */
    return status ? status : *value ? PRESS_OK : PRESS_BAD_SPLIT;
}

static void store(uint64_t value, size_t width, uint8_t *at)
{
    const uint8_t small = (uint8_t)value;
    const uint16_t two = (uint16_t)value;
    const uint32_t four = (uint32_t)value;

    if (width == 1) {
        *at = small;
    } else if (width == 2) {
        memcpy(at, &two, 2);
    } else if (width == 4) {
        memcpy(at, &four, 4);
    } else {
        memcpy(at, &value, 8);
    }
}

static uint64_t load(const uint8_t *bytes, size_t width)
{
    uint64_t value = 0;

    while (width-- > 0) {
        value = value << 8 | bytes[width];
    }
    return value;
}

#ifndef PRESS_SMALL
/*
 * As many elements as can be put together without asking where the mantissas end, up to one that is refused; returns how
 * many. `width` and `bits` (of a mantissa) are known where this is compiled.
 */
static inline size_t put_floats(press_split *split, size_t width, unsigned bits, uint8_t *values, size_t count,
                                const int16_t *levels)
{
    const press_split given = *split; /* a copy: values that are written cannot change it */
    const uint64_t mask = ((uint64_t)1 << given.raw_bits) - 1;
    uint64_t position = given.raw.position;
    size_t i;

    for (i = 0; i < count && (position >> 3) + 8 <= given.raw.size; i++) {
        const int level = levels[i];
        const unsigned magnitude = (unsigned)(level < 0 ? -level : level);
        uint64_t value = press_load64(given.raw.data + (size_t)(position >> 3)) >> (position & 7) & mask;

        value <<= bits - given.raw_bits;
        value |= (uint64_t)(given.exponent + magnitude - 1) << bits | (uint64_t)(level < 0) << (8 * width - 1);
        value = level ? value : 0;
        if (level < given.lowest || level > given.highest || (level && !value)) {
            break;
        }
        position += level ? given.raw_bits : 0;
        store(value, width, values + width * i);
    }
    split->raw.position = position;
    return i;
}
#endif

/* The same for every type of floats; 0 where elements are put together one by one. */
static size_t put_quickly(press_split *split, uint8_t *values, size_t count, const int16_t *levels)
{
#ifndef PRESS_SMALL
    if (split->kind != FLOATS) {
        return 0;
    }
    if (split->type == PRESS_FLOAT) {
        return put_floats(split, 4, 23, values, count, levels);
    }
    return split->type == PRESS_DOUBLE ? put_floats(split, 8, 52, values, count, levels)
                                       : put_floats(split, 2, split->mantissa_bits, values, count, levels);
#else
    (void)split, (void)values, (void)count, (void)levels;
    return 0;
#endif
}

press_status press_put_split(press_split *split, uint8_t *values, size_t start, size_t count, const int16_t *levels)
{
    const size_t width = press_type_size(split->type);
    size_t done, n, i;

    for (done = 0; done < count; done += n) {
        int16_t some[AT_ONCE]; /* values may replace the levels */

        n = count - done < AT_ONCE ? count - done : AT_ONCE;
        memcpy(some, levels + done, sizeof some[0] * n);
        for (i = put_quickly(split, values + width * (start + done), n, some); i < n; i++) {
            uint64_t value = 0;
            press_status status = PRESS_OK;

            if (some[i] < split->lowest || some[i] > split->highest) {
                return PRESS_BAD_CODE;
            }
            if (split->kind == TABLE) {
                value = load(split->table + width * (size_t)(some[i] - split->least), width);
            } else {
                status = value_of(split, some[i], &value);
            }
            if (status) {
                return status;
            }
            store(value, width, values + width * (start + done + i));
        }
    }
    return PRESS_OK;
}

press_status press_finish_split(press_split *split)
{
    return split->kind == FLOATS ? press_finish(&split->raw) : PRESS_OK;
}

#ifndef PRESS_NO_ENCODER

/* ---- Writing ---- */

/* The bits of an element, in this machine's byte order. */
static inline uint64_t word_at(const uint8_t *values, size_t width, size_t i)
{
    uint16_t two;
    uint32_t four;
    uint64_t eight;

    switch (width) {
    case 1:
        return values[i];
    case 2:
        memcpy(&two, values + 2 * i, 2);
        return two;
    case 4:
        memcpy(&four, values + 4 * i, 4);
        return four;
    default:
        memcpy(&eight, values + 8 * i, 8);
        return eight;
    }
}

/* Four in turns: an addition to a count waits for the one before. */
#define TURNS 4

static inline void count_plane(const uint8_t *values, size_t width, size_t plane, size_t count, uint64_t *counts)
{
    uint32_t parts[TURNS][256];
    size_t i, k;

    memset(parts, 0, sizeof parts);
    for (i = 0; i + TURNS <= count; i += TURNS) {
        for (k = 0; k < TURNS; k++) {
            parts[k][values[width * (i + k) + plane]]++;
        }
    }
    for (; i < count; i++) {
        parts[0][values[width * i + plane]]++;
    }
    for (i = 0; i < 256; i++) {
        counts[i] += (uint64_t)parts[0][i] + parts[1][i] + parts[2][i] + parts[3][i];
    }
}

void press_count_planes(const uint8_t *values, size_t width, size_t count, uint64_t *counts)
{
    const size_t at_once = (size_t)1 << 12; /* elements that stay in the fastest cache for all their planes */
    size_t done, n, plane;

    for (done = 0; done < count; done += n) {
        n = count - done < at_once ? count - done : at_once;
        for (plane = 0; plane < width; plane++) {
            const uint8_t *here = values + width * done;
            uint64_t *row = counts + 256 * plane;

            if (width == 4) {
                count_plane(here, 4, plane, n, row);
            } else if (width == 2) {
                count_plane(here, 2, plane, n, row);
            } else {
                count_plane(here, width, plane, n, row);
            }
        }
    }
}

/* Each of these is compiled for the sizes that occur, with `width` and `bits` (of a mantissa) known. */
static inline void scan_floats(const uint8_t *values, size_t width, unsigned bits, size_t count,
                               press_float_range *range)
{
    const unsigned sign_bit = (unsigned)(8 * width - 1);
    unsigned lowest = range->lowest, highest = range->highest;
    uint64_t mantissas = range->mantissas;
    size_t stored = 0, i;

    for (i = 0; i < count; i++) {
        const uint64_t word = word_at(values, width, i);
        const unsigned exponent = (unsigned)((word & (((uint64_t)1 << sign_bit) - 1)) >> bits);

        lowest = word && exponent < lowest ? exponent : lowest;
        highest = word && exponent > highest ? exponent : highest;
        mantissas |= word;
        stored += word != 0;
    }
    range->lowest = lowest;
    range->highest = highest;
    range->mantissas = mantissas & (((uint64_t)1 << bits) - 1);
    range->stored += stored;
}

static inline void float_levels(const uint8_t *values, size_t width, unsigned bits, unsigned exponent, size_t count,
                                int16_t *levels)
{
    const unsigned sign_bit = (unsigned)(8 * width - 1);
    size_t i;

    for (i = 0; i < count; i++) {
        const uint64_t word = word_at(values, width, i);
        const int magnitude = (int)((word & (((uint64_t)1 << sign_bit) - 1)) >> bits) - (int)exponent + 1;
        const int level = word >> sign_bit ? -magnitude : magnitude;

        levels[i] = (int16_t)(word ? level : 0);
    }
}

static inline size_t put_mantissas(const uint8_t *values, size_t width, unsigned bits, unsigned raw_bits, size_t count,
                                   uint8_t *to)
{
    const uint64_t mask = ((uint64_t)1 << raw_bits) - 1;
    uint64_t pending = 0;
    unsigned n_pending = 0;
    size_t at = 0, i;

    /* without a branch: a zero adds no bits */
    for (i = 0; i < count; i++) {
        const uint64_t word = word_at(values, width, i);

        pending |= (word >> (bits - raw_bits) & mask) << n_pending;
        n_pending += word ? raw_bits : 0;
        press_store64(to + at, pending);
        at += n_pending >> 3;
        pending >>= n_pending & 56u;
        n_pending &= 7;
    }
    return at + (n_pending > 0);
}

void press_scan_floats(const uint8_t *values, unsigned type, size_t count, press_float_range *range)
{
    if (type == PRESS_FLOAT) {
        scan_floats(values, 4, 23, count, range);
    } else if (type == PRESS_FLOAT16) {
        scan_floats(values, 2, 10, count, range);
    } else if (type == PRESS_BFLOAT16_TYPE) {
        scan_floats(values, 2, 7, count, range);
    } else if (type == PRESS_DOUBLE) {
        scan_floats(values, 8, 52, count, range);
    }
}

void press_float_levels(const uint8_t *values, unsigned type, unsigned exponent, size_t count, int16_t *levels)
{
    if (type == PRESS_FLOAT) {
        float_levels(values, 4, 23, exponent, count, levels);
    } else if (type == PRESS_FLOAT16) {
        float_levels(values, 2, 10, exponent, count, levels);
    } else if (type == PRESS_BFLOAT16_TYPE) {
        float_levels(values, 2, 7, exponent, count, levels);
    } else if (type == PRESS_DOUBLE) {
        float_levels(values, 8, 52, exponent, count, levels);
    }
}

size_t press_write_mantissas(const uint8_t *values, unsigned type, unsigned raw_bits, size_t count, uint8_t *to)
{
    unsigned exponent_bits, bits;

    if (!float_layout(type, &exponent_bits, &bits) || raw_bits > bits) {
        return 0;
    }
    if (type == PRESS_FLOAT) {
        return put_mantissas(values, 4, 23, raw_bits, count, to);
    }
    return type == PRESS_DOUBLE ? put_mantissas(values, 8, 52, raw_bits, count, to)
                                : put_mantissas(values, 2, bits, raw_bits, count, to);
}
#endif
