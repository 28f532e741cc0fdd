/* Tensors that are not quantized: as they are, in half precision, in byte planes; FORMAT.md, "Encodings". */

#include "press_internal.h"

/* Where byte j (from the lowest) of an element lies in memory here. */
static size_t place_of(size_t j, size_t width)
{
    const uint16_t one = 1;
    uint8_t first;

    memcpy(&first, &one, 1);
    return first ? j : width - 1 - j;
}

/* The largest number of an element of few bits, the least one counted as 0; *bias: what the least one is, negated. */
static unsigned span_of(unsigned type, unsigned *bias)
{
    *bias = type == PRESS_INT4 ? 8 : type == PRESS_INT2 ? 2 : 0;
    switch (type) {
    case PRESS_BOOL:
        return 1;
    case PRESS_UINT4:
    case PRESS_INT4:
    case PRESS_FLOAT4_E2M1:
        return 15;
    case PRESS_UINT2:
    case PRESS_INT2:
        return 3;
    default:
        return 255;
    }
}

press_status press_check_values(unsigned type, const uint8_t *values, size_t count, int any_bits)
{
    const size_t width = press_type_size(type);
    /* all ones where a float is not finite; in its two highest bytes */
    const unsigned exponent =
        type == PRESS_FLOAT ? 0x7F80 : type == PRESS_FLOAT16 ? 0x7C00 : type == PRESS_DOUBLE ? 0x7FF0 : 0;
    unsigned bias, span = span_of(type, &bias);
    size_t i;

    for (i = 0; span < 255 && i < count; i++) {
        if (((values[i] + bias) & 255u) > span) {
            return PRESS_BAD_VALUE;
        }
    }
    if (!exponent || any_bits) {
        return PRESS_OK;
    }
    values += place_of(width - 2, width) & ~(size_t)1;
    for (i = 0; i < count; i++) {
        uint16_t bits;

        memcpy(&bits, values + width * i, sizeof bits);
        if ((bits & exponent) == exponent) {
            return PRESS_BAD_VALUE;
        }
    }
    return PRESS_OK;
}

static void put_plane(const uint8_t *plane, size_t j, size_t width, int add, size_t count, uint8_t *values)
{
    uint8_t *place = values + place_of(j, width);
    size_t i;

    for (i = 0; i < count; i++) {
        place[width * i] = (uint8_t)(plane[i] + add);
    }
}

press_status press_join_planes(const press_tensor *tensor, const uint8_t *planes, size_t planes_size, void *values)
{
    const size_t width = press_type_size(tensor->type);
    size_t count, j;
    press_status status = press_count_elements(tensor, &count);

    if (status) {
        return status;
    }
    if (!width || tensor->type == PRESS_BOOL) {
        return PRESS_BAD_TYPE;
    }
    if (planes_size != count * width) {
        return PRESS_ENDS_EARLY;
    }
    for (j = 0; j < width; j++) {
        put_plane(planes + j * count, j, width, 0, count, (uint8_t *)values);
    }
    return press_check_values(tensor->type, (const uint8_t *)values, count, 0);
}

static press_status take_raw(press_cursor *cursor, size_t width, size_t count, uint8_t *values)
{
    const uint8_t *bytes = press_take(cursor, width * count, &cursor->parts.payload);
    size_t i, j;

    if (!bytes) {
        return PRESS_ENDS_EARLY;
    }
    if (place_of(0, 2) == 0) {
        memcpy(values, bytes, width * count);
        return PRESS_OK;
    }
    for (i = 0; i < count; i++) {
        for (j = 0; j < width; j++) {
            values[width * i + place_of(j, width)] = bytes[width * i + j];
        }
    }
    return PRESS_OK;
}

static press_status take_half(press_cursor *cursor, int brain, size_t count, uint8_t *values)
{
    const uint8_t *bytes = press_take(cursor, 2 * count, &cursor->parts.payload);
    size_t i;

    if (!bytes) {
        return PRESS_ENDS_EARLY;
    }
    for (i = 0; i < count; i++) {
        uint16_t half = press_load16(bytes + 2 * i);
        uint32_t high = (uint32_t)half << 16;
        float value;

        if (brain) {
            memcpy(&value, &high, sizeof value);
        } else {
            value = press_float_from_half(half);
        }
        memcpy(values + 4 * i, &value, sizeof value);
    }
    return PRESS_OK;
}

/* The kinds and code tables of the planes. */
static press_status take_plane_codes(press_cursor *cursor, size_t width, press_code *codes)
{
    size_t j, taken;

    for (j = 0; j < width; j++) {
        const uint8_t *kind = press_take(cursor, 1, &cursor->parts.header);
        press_status status;

        if (!kind) {
            return PRESS_ENDS_EARLY;
        }
        codes[j].lengths = NULL;
        if (*kind > 1) {
            return PRESS_BAD_PLANE;
        }
        if (!*kind) {
            continue;
        }
        status = press_read_code(cursor->data + cursor->at, cursor->size - cursor->at, &codes[j], &taken);
        if (status) {
            return status;
        }
        (void)press_take(cursor, taken, &cursor->parts.tables);
        if (codes[j].lowest < 0 || codes[j].lowest + codes[j].n > 256) {
            return PRESS_BAD_PLANE;
        }
    }
    return PRESS_OK;
}

/* Scratch: a look-up of several symbols, and a byte for each element of a slab. */
static press_status take_planes(press_stream *stream, const press_code *codes, size_t width, size_t count,
                                uint8_t *scratch, uint8_t *values)
{
    uint8_t *symbols = scratch + PRESS_LOOKUP_BYTES + PRESS_MANY_BYTES;
    size_t j;

    for (j = 0; j < width; j++) {
        const uint8_t *plane = symbols;
        press_status status;
        int lowest = 0;

        if (codes[j].lengths) {
            press_lookup lookup;

            press_make_lookup(&lookup, &codes[j], scratch, count >= 4 * PRESS_LANE_SYMBOLS);
            status = press_take_run(stream, &lookup, count, 0, symbols);
            lowest = codes[j].lowest;
        } else {
            status = press_take_bytes(stream, count, &plane);
        }
        if (status) {
            return status;
        }
        put_plane(plane, j, width, lowest, count, values);
    }
    return press_finish(stream);
}

static press_status take_coded_planes(press_cursor *cursor, size_t width, size_t count, uint8_t *scratch,
                                      uint8_t *values)
{
    press_code codes[8];
    size_t n_slabs = (count + PRESS_SLAB_ELEMENTS - 1) / PRESS_SLAB_ELEMENTS, slab;
    const uint8_t *lengths;
    press_status status = take_plane_codes(cursor, width, codes);

    if (status) {
        return status;
    }
    lengths = press_take(cursor, n_slabs > 1 ? 4 * n_slabs : 0, &cursor->parts.header);
    if (!lengths) {
        return PRESS_ENDS_EARLY;
    }
    for (slab = 0; status == PRESS_OK && slab < n_slabs; slab++) {
        size_t start = slab * PRESS_SLAB_ELEMENTS;
        size_t n = count - start < PRESS_SLAB_ELEMENTS ? count - start : PRESS_SLAB_ELEMENTS;
        press_stream stream = {NULL, 0, 0};

        stream.size = n_slabs > 1 ? press_load32(lengths + 4 * slab) : cursor->size - cursor->at;
        stream.data = press_take(cursor, stream.size, &cursor->parts.payload);
        status = stream.data ? take_planes(&stream, codes, width, n, scratch, values + width * start)
                             : PRESS_ENDS_EARLY;
    }
    return status;
}

press_status press_decode_plain(press_cursor *cursor, const press_tensor *tensor, size_t count, void *scratch,
                                uint8_t *values)
{
    const size_t width = press_type_size(tensor->type);
    const int is_half = tensor->encoding == PRESS_HALF || tensor->encoding == PRESS_BFLOAT16;
    press_status status;

    if (!width || (is_half && tensor->type != PRESS_FLOAT) ||
        (tensor->encoding == PRESS_ANY_BITS && tensor->type == PRESS_BOOL)) {
        return PRESS_BAD_TYPE;
    }
    if (is_half) {
        status = take_half(cursor, tensor->encoding == PRESS_BFLOAT16, count, values);
    } else if (tensor->encoding == PRESS_RAW || tensor->encoding == PRESS_ANY_BITS) {
        status = take_raw(cursor, width, count, values);
    } else {
        status = take_coded_planes(cursor, width, count, (uint8_t *)scratch, values);
    }
    return status ? status
                  : press_check_values(tensor->type, values, count, tensor->encoding == PRESS_ANY_BITS);
}
