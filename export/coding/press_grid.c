/* Quantization grids, and what levels stand for under one; FORMAT.md, "Grid" and "Levels". */

#include "press_internal.h"

/* Every operation on floats is rounded on its own: no fused multiply-add, which rounds once. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#define AT_ONCE 256 /* elements that are converted together */

/* ---- Floats ---- */

static float float_of_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of_float(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float press_float_from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 1023u;

    if (exponent == 31) {
        return float_of_bits(sign | 0x7F800000u | fraction << 13);
    }
    if (exponent == 0) {
        float value = (float)fraction * (1.0f / 16777216.0f); /* subnormal: units of 2^-24, exact */

        return sign ? -value : value;
    }
    return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

/* To the nearest, ties to even; the value is finite and less than 65,520 in magnitude. */
uint16_t press_half_from_float(float value)
{
    uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    uint32_t exponent = magnitude >> 23, shift, kept, rest, half;

    if (exponent >= 113) { /* normal in 16 bits, too */
        half = (magnitude - (112u << 23)) >> 13;
        rest = magnitude & 0x1FFFu;
        half += rest > 0x1000u || (rest == 0x1000u && (half & 1u));
        return (uint16_t)(sign | half);
    }
    if (exponent < 102) { /* less than half of the least */
        return (uint16_t)sign;
    }
    shift = 126 - exponent;
    kept = (magnitude & 0x7FFFFFu) | 0x800000u;
    half = kept >> shift;
    rest = kept & (((uint32_t)1 << shift) - 1);
    half += rest > (uint32_t)1 << (shift - 1) || (rest == (uint32_t)1 << (shift - 1) && (half & 1u));
    return (uint16_t)(sign | half);
}

float press_parameter(const uint8_t *parameter, size_t k, int is_half)
{
    return is_half ? press_float_from_half(press_load16(parameter + 2 * k))
                   : float_of_bits(press_load32(parameter + 4 * k));
}

static float scale_of(const press_grid *grid, size_t channel)
{
    return press_parameter(grid->scale, grid->n_scales > 1 ? channel : 0, grid->flags & PRESS_SHORT_SCALE);
}

static float offset_of(const press_grid *grid, size_t channel)
{
    return press_parameter(grid->offset, grid->n_scales > 1 ? channel : 0, grid->flags & PRESS_SHORT_OFFSET);
}

static float factor_of(const press_grid *grid, size_t channel)
{
    return press_parameter(grid->channel_scale, channel, grid->flags & PRESS_SHORT_CHANNEL_SCALE);
}

/* ---- Reading a grid ---- */

static int is_finite(float value)
{
    return (bits_of_float(value) & 0x7F800000u) != 0x7F800000u;
}

/* A parameter of `count` floats; PRESS_BAD_SCALE if one is not finite, or not positive where that is asked for. */
static press_status take_parameter(press_cursor *cursor, size_t count, int is_half, int positive,
                                   const uint8_t **parameter)
{
    size_t width = is_half ? 2 : 4, k;

    if (count > (cursor->size - cursor->at) / width) {
        return PRESS_ENDS_EARLY;
    }
    *parameter = press_take(cursor, width * count, &cursor->parts.scales);
    for (k = 0; k < count; k++) {
        float value = press_parameter(*parameter, k, is_half);

        if (!is_finite(value) || (positive && !(value > 0))) {
            return PRESS_BAD_SCALE;
        }
    }
    return PRESS_OK;
}

/* ---- Arithmetic of binary64 on magnitudes, in integers: a machine without it would carry 2 kB of it for one check ---- */

/* mantissa * 2^exponent; the mantissa is 0 or has its highest bit set, and its lowest is set for all bits cut off. */
typedef struct magnitude {
    uint64_t mantissa;
    int exponent;
} magnitude;

static magnitude normal(uint64_t mantissa, int exponent)
{
    magnitude made;

    while (mantissa && !(mantissa >> 63)) {
        mantissa <<= 1;
        exponent--;
    }
    made.mantissa = mantissa;
    made.exponent = exponent;
    return made;
}

/* To 53 bits, ties to even. */
static magnitude rounded(uint64_t mantissa, int exponent)
{
    magnitude made = normal(mantissa, exponent);
    const unsigned rest = (unsigned)(made.mantissa & 2047);

    made.mantissa -= rest;
    if (rest > 1024 || (rest == 1024 && made.mantissa & 2048)) {
        made.mantissa += 2048;
        if (!made.mantissa) {
            made.mantissa = (uint64_t)1 << 63;
            made.exponent++;
        }
    }
    return made;
}

/* Of a finite float times a small integer, exactly. */
static magnitude magnitude_of(float value, unsigned times)
{
    const uint32_t bits = bits_of_float(value), exponent = bits >> 23 & 255u;
    const uint32_t fraction = (bits & 0x7FFFFFu) | (exponent ? 0x800000u : 0);

    return normal((uint64_t)fraction * times, (int)(exponent ? exponent : 1) - 150);
}

/* A mantissa moved right by 1 bit or more. */
static uint64_t moved(uint64_t mantissa, int bits)
{
    return bits < 64 ? mantissa >> bits | (mantissa << (64 - bits) != 0) : mantissa != 0;
}

static magnitude sum(magnitude a, magnitude b)
{
    const int exponent = (a.exponent > b.exponent ? a.exponent : b.exponent) + 1;

    return rounded(moved(a.mantissa, exponent - a.exponent) + moved(b.mantissa, exponent - b.exponent), exponent);
}

/* b has no more than 32 bits. */
static magnitude product(magnitude a, magnitude b)
{
    const uint64_t high = b.mantissa >> 32, low = (a.mantissa & 0xFFFFFFFFu) * high;

    return rounded(((a.mantissa >> 32) * high + (low >> 32)) | ((uint32_t)low != 0), a.exponent + b.exponent + 64);
}

/* Whether a magnitude is below top * 2^(exponent + 48). */
static int is_below(magnitude a, unsigned top, int exponent)
{
    return !a.mantissa || a.exponent < exponent || (a.exponent == exponent && a.mantissa >> 48 < top);
}

/* The largest values must stay below the end of their type, so that no rounding reaches it. */
static press_status check_magnitude(const press_grid *grid)
{
    size_t n = grid->channel_scale ? grid->channels : grid->n_scales, channel;
    int low, high;

    press_code_bounds(grid, &low, &high);
    if (grid->n_scales == 1 && grid->channels == 0) {
        n = 1; /* one scale, although nothing is scaled */
    }
    for (channel = 0; channel < n; channel++) {
        magnitude bound = magnitude_of(scale_of(grid, channel), (unsigned)high);

        if (grid->offset) {
            bound = sum(bound, magnitude_of(offset_of(grid, channel), 1));
        }
        if (!is_below(bound, 0x8000, 64)) { /* 2^127 */
            return PRESS_OVERFLOW;
        }
        if (grid->channel_scale) {
            bound = product(bound, magnitude_of(grid->channels ? factor_of(grid, channel) : 0.0f, 1));
        }
        if (!(grid->type == PRESS_FLOAT16 ? is_below(bound, 65504, -48) : is_below(bound, 0x8000, 64))) {
            return PRESS_OVERFLOW;
        }
    }
    return PRESS_OK;
}

static press_status take_parameters(press_cursor *cursor, press_grid *grid)
{
    unsigned flags = grid->flags;
    press_status status =
        take_parameter(cursor, grid->n_scales, (flags & PRESS_SHORT_SCALE) != 0, 1, &grid->scale);

    if (status == PRESS_OK && flags & PRESS_OFFSET) {
        status = take_parameter(cursor, grid->n_scales, (flags & PRESS_SHORT_OFFSET) != 0, 0, &grid->offset);
    }
    if (status == PRESS_OK && flags & PRESS_CHANNEL_SCALE) {
        status = take_parameter(cursor, grid->channels, (flags & PRESS_SHORT_CHANNEL_SCALE) != 0, 0,
                                &grid->channel_scale);
    }
    return status ? status : check_magnitude(grid);
}

press_status press_take_grid(press_cursor *cursor, const press_tensor *tensor, press_grid *grid)
{
    int is_old = tensor->encoding <= PRESS_CSR_1_0; /* of version 1.0 */
    const uint8_t *head = press_take(cursor, 2, &cursor->parts.header);
    unsigned flags, k;
    press_status status;

    memset(grid, 0, sizeof *grid);
#ifdef PRESS_NO_1_0
    if (is_old) {
        return PRESS_LEFT_OUT;
    }
#endif
    if (!head) {
        return PRESS_ENDS_EARLY;
    }
    if (!tensor->n_dims || !(tensor->type == PRESS_FLOAT || (tensor->type == PRESS_FLOAT16 && !is_old))) {
        return PRESS_BAD_TYPE;
    }
    status = press_count_elements(tensor, &grid->elements);
    if (status) {
        return status;
    }

    grid->type = tensor->type;
    grid->bits = is_old ? head[0] : head[0] & 15;
    grid->axis = is_old ? 0 : head[0] >> 4;
    grid->flags = head[1];
    flags = head[1];
    if (grid->bits < 2 || grid->bits > 8 || grid->axis >= tensor->n_dims || (is_old && flags > 15) ||
        (flags & (PRESS_SUPPORT | PRESS_SHORT_OFFSET) && !(flags & PRESS_OFFSET)) ||
        (flags & PRESS_SIGNED_CENTRE && !(flags & PRESS_SUPPORT)) ||
        (flags & PRESS_SHORT_CHANNEL_SCALE && !(flags & PRESS_CHANNEL_SCALE))) {
        return PRESS_BAD_GRID;
    }

    grid->channels = tensor->dims[grid->axis];
    grid->inner = 1;
    for (k = grid->axis + 1u; k < tensor->n_dims; k++) {
        grid->inner *= tensor->dims[k];
    }
    grid->n_scales = flags & PRESS_PER_CHANNEL ? grid->channels : 1;
    return take_parameters(cursor, grid);
}

press_status press_read_grid(const press_tensor *tensor, press_grid *grid, size_t *size)
{
    press_cursor cursor = {NULL, 0, 0, {0, 0, 0, 0}};
    press_status status;

    if (!press_is_quantized(tensor->encoding)) {
        return PRESS_BAD_ARGUMENT;
    }
    cursor.data = tensor->blob;
    cursor.size = tensor->blob_size;
    status = press_take_grid(&cursor, tensor, grid);
    *size = cursor.at;
    return status;
}

/* ---- Codes and levels ---- */

void press_code_bounds(const press_grid *grid, int *low, int *high)
{
    if (grid->offset) {
        *low = 0;
        *high = (1 << grid->bits) - 1;
    } else {
        *high = (1 << (grid->bits - 1)) - 1;
        *low = -*high;
    }
}

int press_centre(const press_grid *grid, size_t channel)
{
    int low, high, below;
    float quotient, rest;

    if (!grid->offset) {
        return 0;
    }
    press_code_bounds(grid, &low, &high);
    quotient = -offset_of(grid, channel) / scale_of(grid, channel);
    if (!(quotient > 0)) {
        return 0;
    }
    if (quotient >= (float)high) {
        return high;
    }
    below = (int)quotient;
    rest = quotient - (float)below; /* exact */
    if (grid->flags & PRESS_SIGNED_CENTRE) {
        return below + (rest > 0);
    }
    return below + (rest > 0.5f || (rest == 0.5f && below % 2));
}

void press_level_bounds(const press_grid *grid, int *low, int *high)
{
    int least = 256, most = 0, first, last;
    size_t channel;

    for (channel = 0; channel < grid->n_scales; channel++) {
        int centre = press_centre(grid, channel);

        least = centre < least ? centre : least;
        most = centre > most ? centre : most;
    }
    if (grid->n_scales == 0 && grid->offset) {
        *low = *high = 0;
        return;
    }
    if (!grid->offset) {
        least = most = 0;
    }
    press_code_bounds(grid, &first, &last);
    *low = first - most;
    *high = last - least + (grid->flags & PRESS_SUPPORT ? 1 : 0);
}

/* Codes of some levels of one channel; returns whether all are in range. */
static int codes_of(const press_grid *grid, int centre, const int16_t *levels, size_t count, uint8_t *codes,
                    uint8_t *support)
{
    int low, high, bad = 0;
    size_t i;

    press_code_bounds(grid, &low, &high);
    if (!(grid->flags & PRESS_SUPPORT)) {
        for (i = 0; i < count; i++) {
            int code = levels[i] + centre;

            bad |= (code < low) | (code > high);
            codes[i] = (uint8_t)code;
        }
        return !bad;
    }
    for (i = 0; i < count; i++) {
        int level = levels[i], kept = level != 0;
        int code = (level - (level > 0) + centre) & -kept;

        bad |= (code < low) | (code > high);
        codes[i] = (uint8_t)code;
        support[i] = (uint8_t)kept;
    }
    return !bad;
}

/* Values of some codes of one channel. */
static void values_of(const press_grid *grid, size_t channel, const uint8_t *codes, const uint8_t *support,
                      size_t count, float *values)
{
    const float scale = scale_of(grid, channel);
    size_t i;

    if (grid->offset) {
        const float offset = offset_of(grid, channel);

        for (i = 0; i < count; i++) {
            float product = (float)codes[i] * scale;

            values[i] = product + offset;
        }
    } else {
        for (i = 0; i < count; i++) {
            values[i] = (float)(int8_t)codes[i] * scale;
        }
    }

    if (grid->channel_scale) {
        const float factor = factor_of(grid, channel);

        for (i = 0; i < count; i++) {
            values[i] = values[i] * factor;
        }
    }

    /* exact zeros last: offset and factor would move them, or make -0 of them */
    if (grid->flags & PRESS_SUPPORT) {
        for (i = 0; i < count; i++) {
            values[i] = support[i] ? values[i] : 0.0f;
        }
    } else if (!grid->offset && grid->channel_scale) {
        for (i = 0; i < count; i++) {
            values[i] = codes[i] ? values[i] : 0.0f;
        }
    }
}

/* ---- Elements of many channels: where few lie between one channel and the next ---- */

#ifndef PRESS_SMALL
#define FEW 16 /* elements of one channel; from here on, channels are taken one by one */
#endif

/* The channel of an element, moved on from element to element. */
typedef struct place {
    size_t channel, since; /* elements since its first */
} place;

static place place_at(const press_grid *grid, size_t at)
{
    place here;

    here.channel = at / grid->inner % grid->channels;
    here.since = at % grid->inner;
    return here;
}

static inline void move_on(const press_grid *grid, place *here)
{
    if (++here->since == grid->inner) {
        here->since = 0;
        if (++here->channel == grid->channels) {
            here->channel = 0;
        }
    }
}

static int has_many_channels(const press_grid *grid)
{
#ifdef PRESS_SMALL
    (void)grid;
    return 1; /* one way for all */
#else
    return (grid->n_scales > 1 || grid->channel_scale) && grid->inner < FEW;
#endif
}

static int codes_of_many(const press_grid *grid, size_t at, const int16_t *levels, size_t count, uint8_t *codes,
                         uint8_t *support)
{
    place here = place_at(grid, at);
    int good = 1;
    size_t i;

    for (i = 0; i < count; i++, move_on(grid, &here)) {
        good &= codes_of(grid, press_centre(grid, here.channel), levels + i, 1, codes + i, support + i);
    }
    return good;
}

static void values_of_many(const press_grid *grid, size_t at, const uint8_t *codes, const uint8_t *support,
                           size_t count, float *values)
{
    const int is_half = grid->flags & PRESS_SHORT_SCALE, is_half_offset = grid->flags & PRESS_SHORT_OFFSET;
    const int is_half_factor = grid->flags & PRESS_SHORT_CHANNEL_SCALE, has_support = grid->flags & PRESS_SUPPORT;
    place here = place_at(grid, at);
    size_t i;

    for (i = 0; i < count; i++, move_on(grid, &here)) {
        size_t k = grid->n_scales > 1 ? here.channel : 0;
        int code = grid->offset ? codes[i] : (int8_t)codes[i];
        float value = (float)code * press_parameter(grid->scale, k, is_half);

        if (grid->offset) {
            value = value + press_parameter(grid->offset, k, is_half_offset);
        }
        if (grid->channel_scale) {
            value = value * press_parameter(grid->channel_scale, here.channel, is_half_factor);
        }
        if (has_support ? !support[i] : !grid->offset && !code) {
            value = 0.0f; /* exact zeros last, as above */
        }
        values[i] = value;
    }
}

static void store_values(const press_grid *grid, const float *some, size_t count, uint8_t *values)
{
    size_t i;

    if (grid->type == PRESS_FLOAT) {
        memcpy(values, some, sizeof(float) * count);
        return;
    }
    for (i = 0; i < count; i++) {
        uint16_t half = press_half_from_float(some[i]);

        memcpy(values + 2 * i, &half, sizeof half);
    }
}

/* Elements from `at` on that have one channel, at most `most`; *channel: which. */
static size_t of_one_channel(const press_grid *grid, size_t at, size_t most, size_t *channel)
{
    size_t left;

    if (grid->n_scales == 1 && !grid->channel_scale) {
        *channel = 0;
        return most;
    }
    *channel = at / grid->inner % grid->channels;
    left = grid->inner - at % grid->inner;
    return left < most ? left : most;
}

press_status press_put_levels(const press_sink *sink, size_t start, size_t count, const int16_t *levels)
{
    const press_grid *grid = sink->grid;
    const size_t width = grid->type == PRESS_FLOAT ? 4 : 2;
    const int many = has_many_channels(grid);
    size_t done = 0, n, channel;
    int good;

    if (sink->split) {
        return press_put_split(sink->split, sink->values, start, count, levels);
    }
    while (done < count) {
        size_t left = count - done;

        if (sink->values) { /* through buffers of our own: the values may replace the levels */
            int16_t some[AT_ONCE];
            uint8_t codes[AT_ONCE], support[AT_ONCE];
            float values[AT_ONCE];

            n = left < AT_ONCE ? left : AT_ONCE;
            if (many) {
                memcpy(some, levels + done, sizeof some[0] * n);
                if (!codes_of_many(grid, start + done, some, n, codes, support)) {
                    return PRESS_BAD_CODE;
                }
                values_of_many(grid, start + done, codes, support, n, values);
            } else {
                n = of_one_channel(grid, start + done, n, &channel);
                memcpy(some, levels + done, sizeof some[0] * n);
                if (!codes_of(grid, press_centre(grid, channel), some, n, codes, support)) {
                    return PRESS_BAD_CODE;
                }
                values_of(grid, channel, codes, support, n, values);
            }
            store_values(grid, values, n, sink->values + width * (start + done));
        } else {
            uint8_t unasked[AT_ONCE], *codes = sink->codes + start + done;
            uint8_t *support = sink->support ? sink->support + start + done : unasked;

            n = left < AT_ONCE ? left : AT_ONCE;
            if (many) {
                good = codes_of_many(grid, start + done, levels + done, n, codes, support);
            } else {
                n = of_one_channel(grid, start + done, n, &channel);
                good = codes_of(grid, press_centre(grid, channel), levels + done, n, codes, support);
            }
            if (!good) {
                return PRESS_BAD_CODE;
            }
        }
        done += n;
    }
    return PRESS_OK;
}

void press_dequantize(const press_grid *grid, size_t start, size_t count, const uint8_t *codes,
                      const uint8_t *support, void *values)
{
    const size_t width = grid->type == PRESS_FLOAT ? 4 : 2;
    size_t done = 0, channel;

    while (done < count) {
        float some[AT_ONCE];
        size_t left = count - done;
        size_t n = left < AT_ONCE ? left : AT_ONCE;
        const uint8_t *kept = support ? support + done : NULL;

        if (has_many_channels(grid)) {
            values_of_many(grid, start + done, codes + done, kept, n, some);
        } else {
            n = of_one_channel(grid, start + done, n, &channel);
            values_of(grid, channel, codes + done, kept, n, some);
        }
        store_values(grid, some, n, (uint8_t *)values + width * done);
        done += n;
    }
}

press_status press_csr_to_dense(const uint8_t *data, const int64_t *indices, const int64_t *indptr, size_t n,
                                size_t rows, size_t columns, uint8_t *codes, uint8_t *support)
{
    size_t row;
    int64_t k;

    if (indptr[0] != 0 || indptr[rows] < 0 || (uint64_t)indptr[rows] != n) {
        return PRESS_BAD_CSR;
    }
    memset(codes, 0, rows * columns);
    if (support) {
        memset(support, 0, rows * columns);
    }
    for (row = 0; row < rows; row++) {
        int64_t before = -1;

        if (indptr[row + 1] < indptr[row] || (uint64_t)indptr[row + 1] > n) {
            return PRESS_BAD_CSR;
        }
        for (k = indptr[row]; k < indptr[row + 1]; k++) {
            size_t at = row * columns + (size_t)indices[k];

            if (indices[k] <= before || (uint64_t)indices[k] >= columns) {
                return PRESS_BAD_CSR;
            }
            before = indices[k];
            codes[at] = data[k];
            if (support) {
                support[at] = 1;
            }
        }
    }
    return PRESS_OK;
}
