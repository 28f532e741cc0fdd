/* Convolutions: weights decoded channel by channel, zeros skipped, several outputs at a time. */
#include "press.h"
#include "press_internal.h"
#include "press_nn_arithmetic.h"

#define BLOCK 8 /* outputs of one row at a time */

/*
 * Four bytes times a weight by two multiplications, each of two bytes 24 bits apart, into sums of 64 bits: of up to 512
 * products of 255 * 128 each stays in its place. It is for processors that multiply and add 32 x 32 to 64 bits at once.
 */
#ifndef PRESS_NN_WIDE
#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
#define PRESS_NN_WIDE 0
#else
#define PRESS_NN_WIDE 1
#endif
#endif
#define WIDE_PRODUCTS 512u
#define WIDE_BYTES 0xFF0000FFu
#define WIDE_SUM 0xFFFFFFu

/* ---- Weights of one output channel ---- */

/*
 * Those that are not zero, as pairs: a step from the place of one to that of the next, and a magnitude. The positive
 * ones come first; the negative ones end where the room does.
 */
typedef struct taps {
    uint16_t *positive, *negative;
    uint32_t n_positive, n_negative;
} taps;

/* Codewords of up to eight bits: for every window the number of a value, and below it four bits of length. */
typedef struct level_code {
    const uint16_t *windows;
    uint32_t mask;
    uint32_t lowest; /* the first number that has a codeword */
} level_code;

typedef struct row_decoder {
    const press_nn_weights *layer;
    const press_nn_room *room;
    press_stream stream;
    press_lookup masks;
    level_code levels[PRESS_NN_CONTEXTS];
    uint16_t *mask_of;
    uint16_t *taps;
    uint32_t *place_of; /* of the elements that masks speak of, until they repeat in the next planes */
    uint32_t n_places, next; /* how many; and from there to the next ones */
} row_decoder;

/* Two ends of one list of taps. */
typedef struct tap_writer {
    uint16_t *low, *high; /* where the next ones go: two numbers upwards, two downwards */
    uint32_t at_positive, at_negative;
    uint32_t left;
} tap_writer;

static press_nn_status put_tap(tap_writer *out, uint32_t place, int weight)
{
    uint32_t step = place - (weight > 0 ? out->at_positive : out->at_negative);

    for (;;) { /* a step of more than 16 bits takes several */
        uint16_t part = (uint16_t)(step < 0xFFFF ? step : 0xFFFF);

        if (out->left-- == 0) {
            return PRESS_NN_DAMAGED;
        }
        if (weight > 0) {
            out->low[0] = part;
            out->low[1] = (uint16_t)(step <= 0xFFFF ? weight : 0);
            out->low += 2;
        } else {
            out->high -= 2;
            out->high[0] = part;
            out->high[1] = (uint16_t)(step <= 0xFFFF ? -weight : 0);
        }
        if (step <= 0xFFFF) {
            break;
        }
        step -= part;
    }
    if (weight > 0) {
        out->at_positive = place;
    } else {
        out->at_negative = place;
    }
    return PRESS_NN_OK;
}

/* Turn the negative ones round, which were put in from the end on. */
static void end_taps(const row_decoder *rows, const tap_writer *out, taps *row)
{
    uint16_t *const end = rows->taps + 2 * rows->room->n_taps;
    uint16_t *i, *k;

    row->positive = rows->taps;
    row->n_positive = (uint32_t)(out->low - rows->taps) / 2;
    row->negative = out->high;
    row->n_negative = (uint32_t)(end - out->high) / 2;
    for (i = out->high, k = end - 2; i < k; i += 2, k -= 2) {
        const uint16_t step = i[0], weight = i[1];

        i[0] = k[0];
        i[1] = k[1];
        k[0] = step;
        k[1] = weight;
    }
}

/* Read the code table at *table, and move on; its look-ups are put into the room from *used on. */
static press_nn_status read_table(const uint8_t **table, uint32_t *size, press_lookup *lookup, uint8_t *arena,
                                  const press_nn_room *room, uint32_t *used)
{
    press_code code;
    size_t taken;

    if (press_read_code(*table, *size, &code, &taken) != PRESS_OK ||
        *used + press_lookup_size(&code, 0) > room->lookups_size) {
        return PRESS_NN_DAMAGED;
    }
    press_make_lookup(lookup, &code, arena + room->lookups + *used, 0);
    *used += (uint32_t)press_lookup_size(&code, 0);
    *table += taken;
    *size -= (uint32_t)taken;
    return PRESS_NN_OK;
}

static press_nn_status read_tables(row_decoder *rows, uint8_t *arena)
{
    const press_nn_weights *layer = rows->layer;
    const uint8_t *table = layer->masks;
    uint32_t size = layer->masks_size, used = 0, k;
    press_nn_status status = read_table(&table, &size, &rows->masks, arena, rows->room, &used);

    table = layer->levels;
    size = layer->levels_size;
    for (k = 0; status == PRESS_NN_OK && k < PRESS_NN_CONTEXTS; k++) {
        level_code *code = &rows->levels[k];
        press_lookup lookup;

        if (k >= layer->contexts) {
            *code = rows->levels[0];
            continue;
        }
        status = read_table(&table, &size, &lookup, arena, rows->room, &used);
        if (status || lookup.code.lowest < 0 || lookup.code.width > PRESS_SINGLE_BITS ||
            (uint32_t)lookup.code.lowest + lookup.code.n > layer->n_values) {
            return PRESS_NN_DAMAGED;
        }
        code->windows = lookup.single;
        code->mask = lookup.code.used < 2 ? 0 : ((uint32_t)1 << lookup.bits) - 1;
        code->lowest = (uint32_t)lookup.code.lowest;
        if (lookup.code.used < 2) { /* one number, whose codeword is empty */
            lookup.single[0] = (uint16_t)(lookup.code.only << 4);
        }
    }
    return status;
}

static press_nn_status start_rows(row_decoder *rows, uint8_t *arena, const press_nn_room *room,
                                  const press_nn_weights *layer, const press_nn_planes *from)
{
    const uint32_t n_taps = (uint32_t)layer->kernel_height * layer->kernel_width, pitch = press_nn_pitch(from);
    uint32_t k;

    rows->layer = layer;
    rows->room = room;
    rows->stream.data = layer->codes;
    rows->stream.size = layer->codes_size;
    rows->stream.position = 0;
    rows->mask_of = (uint16_t *)(void *)(arena + room->masks);
    rows->place_of = (uint32_t *)(void *)(arena + room->places);
    rows->taps = (uint16_t *)(void *)(arena + room->taps);
    rows->n_places = n_taps == 1 ? layer->group : n_taps;
    rows->next = n_taps == 1 ? layer->group * pitch : pitch;
    for (k = 0; k < rows->n_places; k++) {
        rows->place_of[k] = n_taps == 1 ? k * pitch
                                        : k / layer->kernel_width * layer->dilation_rows * press_nn_row(from) +
                                              k % layer->kernel_width * layer->dilation_columns;
    }
    return layer->coding == PRESS_NN_HUFFMAN ? read_tables(rows, arena) : PRESS_NN_OK;
}

static press_nn_status decode_masks(row_decoder *rows, uint32_t n)
{
    const uint32_t group = rows->layer->group, n_masks = (n + group - 1) / group;
    uint32_t k;

    if (n_masks > rows->room->n_masks ||
        press_take_run(&rows->stream, &rows->masks, n_masks, 1, rows->mask_of) != PRESS_OK) {
        return PRESS_NN_DAMAGED;
    }
    for (k = 0; k < n_masks; k++) {
        uint32_t mask = (uint32_t)((int32_t)rows->mask_of[k] + rows->masks.code.lowest);

        if (mask >> (k + 1 < n_masks ? group : n - k * group)) {
            return PRESS_NN_DAMAGED;
        }
        rows->mask_of[k] = (uint16_t)mask;
    }
    return PRESS_NN_OK;
}

/* The next 32 bits of a stream, or what there is of them. */
static inline uint32_t window_at(const press_stream *stream, size_t at)
{
    return at + 4 <= stream->size ? press_load32(stream->data + at)
                                  : (uint32_t)press_load64_within(stream->data, stream->size, at);
}

/* The taps of one group of weights, `place` being those of its elements. */
static inline press_nn_status taps_of_group(row_decoder *rows, uint32_t mask, const uint32_t *place, uint32_t plane,
                                            const int8_t *values, tap_writer *out)
{
    const uint32_t width = rows->layer->kernel_width;
    int8_t signs[24]; /* of the group's elements, behind a row of zeros */
    size_t at = (size_t)(rows->stream.position >> 3);
    uint32_t bit = (uint32_t)rows->stream.position & 7, column = 0;
    int8_t *sign = signs + 9, *k;

    for (k = signs; k < sign; k++) {
        *k = 0;
    }
    for (; mask; mask >>= 1, place++, sign++) {
        *sign = 0;
        if (mask & 1) {
            const int around = (column ? sign[-1] : 0) + sign[-(int32_t)width];
            const level_code *code = &rows->levels[around < 0 ? 0 : around > 0 ? 2 : 1];
            const uint32_t entry = code->windows[window_at(&rows->stream, at) >> bit & code->mask];
            const int value = values[code->lowest + (entry >> 4)];
            press_nn_status status = put_tap(out, plane + *place, value);

            if (status) {
                return status;
            }
            *sign = (int8_t)(value < 0 ? -1 : 1);
            bit += entry & 15;
            at += bit >> 3;
            bit &= 7;
        }
        column = column + 1 == width ? 0 : column + 1;
    }
    rows->stream.position = 8 * (uint64_t)at + bit;
    return PRESS_NN_OK;
}

static press_nn_status taps_of_masks(row_decoder *rows, const int8_t *values, uint32_t n, tap_writer *out)
{
    const uint32_t *place = rows->place_of, *const last = place + rows->n_places;
    uint32_t plane = 0, k, at;

    for (k = 0, at = 0; at < n; k++, at += rows->layer->group) {
        press_nn_status status = taps_of_group(rows, rows->mask_of[k], place, plane, values, out);

        if (status) {
            return status;
        }
        place += rows->layer->group;
        if (place >= last) {
            place = rows->place_of;
            plane += rows->next;
        }
    }
    return rows->stream.position <= 8 * (uint64_t)rows->stream.size ? PRESS_NN_OK : PRESS_NN_DAMAGED;
}

static press_nn_status taps_of_packed(row_decoder *rows, const int8_t *values, uint32_t channel, uint32_t n,
                                      tap_writer *out)
{
    const press_nn_weights *layer = rows->layer;
    uint32_t bit = channel * n * layer->bits, plane = 0, at, tap = 0;

    if (bit + n * layer->bits > 8 * layer->codes_size) {
        return PRESS_NN_DAMAGED;
    }
    for (at = 0; at < n; at++, bit += layer->bits) {
        const uint8_t *bytes = layer->codes + (bit >> 3);
        unsigned number = bytes[0];
        int value;

        if ((bit & 7) + layer->bits > 8) {
            number |= (unsigned)bytes[1] << 8;
        }
        number = number >> (bit & 7) & ((1u << layer->bits) - 1);
        if (number >= layer->n_values) {
            return PRESS_NN_DAMAGED;
        }
        value = values ? values[number] : (int)number - 128;
        if (value) {
            press_nn_status status = put_tap(out, plane + rows->place_of[tap], value);

            if (status) {
                return status;
            }
        }
        if (++tap == rows->n_places) {
            tap = 0;
            plane += rows->next;
        }
    }
    return PRESS_NN_OK;
}

static press_nn_status decode_row(row_decoder *rows, uint32_t channel, taps *row)
{
    const press_nn_weights *layer = rows->layer;
    const uint32_t n = (uint32_t)layer->inputs * layer->kernel_height * layer->kernel_width;
    const int8_t *values = layer->values;
    tap_writer out;
    press_nn_status status;

    out.low = rows->taps;
    out.high = rows->taps + 2 * rows->room->n_taps;
    out.at_positive = out.at_negative = 0;
    out.left = rows->room->n_taps;
    if (values && layer->values_differ) {
        values += channel * layer->n_values;
    }
    if (layer->coding == PRESS_NN_HUFFMAN) {
        status = decode_masks(rows, n);
        status = status ? status : taps_of_masks(rows, values, n, &out);
    } else {
        status = taps_of_packed(rows, values, channel, n, &out);
    }
    end_taps(rows, &out, row);
    return status;
}

/* A stream that was decoded to its end is used up. */
static press_nn_status end_rows(const row_decoder *rows)
{
    const int is_used_up = rows->layer->coding != PRESS_NN_HUFFMAN ||
                           (rows->stream.position + 7) >> 3 == (uint64_t)rows->stream.size;

    return is_used_up ? PRESS_NN_OK : PRESS_NN_DAMAGED;
}

/* ---- Products ---- */

static int32_t add_one(const uint8_t *x, const uint16_t *tap, uint32_t n)
{
    int32_t sum = 0;

    for (; n; n--, tap += 2) {
        x += tap[0];
        sum += *x * tap[1];
    }
    return sum;
}

/* The judge of the others; outputs may lie `apart` in the input. */
static inline void add_plain(const uint8_t *x, uint32_t apart, const uint16_t *tap, uint32_t n, int32_t sign,
                             int32_t *sums)
{
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;

    for (; n; n--, tap += 2) {
        const int32_t weight = tap[1];

        x += tap[0];
        s0 += x[0] * weight;
        s1 += x[apart] * weight;
        s2 += x[2 * apart] * weight;
        s3 += x[3 * apart] * weight;
        s4 += x[4 * apart] * weight;
        s5 += x[5 * apart] * weight;
        s6 += x[6 * apart] * weight;
        s7 += x[7 * apart] * weight;
    }
    sums[0] += sign * s0;
    sums[1] += sign * s1;
    sums[2] += sign * s2;
    sums[3] += sign * s3;
    sums[4] += sign * s4;
    sums[5] += sign * s5;
    sums[6] += sign * s6;
    sums[7] += sign * s7;
}

#if PRESS_NN_WIDE
/*
 * Sixteen registers hold all of the loop if the compiler neither moves loads forward nor adds pointers: then it takes
 * sixteen instructions for eight products on ARM.
 */
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((noinline, optimize("no-schedule-insns", "no-ivopts")))
#endif
static const uint8_t *wide_products(const uint8_t *x, const uint16_t *tap, const uint16_t *end, uint64_t *out)
{
    uint64_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;

    for (; tap != end; tap += 2) {
        const uint32_t weight = tap[1];
        uint32_t four;

        x += tap[0];
        four = press_load32(x);
        s0 += (uint64_t)(four & WIDE_BYTES) * weight;
        s1 += (uint64_t)((four >> 16 | four << 16) & WIDE_BYTES) * weight;
        four = press_load32(x + 4);
        s2 += (uint64_t)(four & WIDE_BYTES) * weight;
        s3 += (uint64_t)((four >> 16 | four << 16) & WIDE_BYTES) * weight;
    }
    out[0] = s0;
    out[1] = s1;
    out[2] = s2;
    out[3] = s3;
    return x;
}

static void add_wide(const uint8_t *x, const uint16_t *tap, uint32_t n, int32_t sign, int32_t *sums)
{
    while (n) {
        const uint32_t part = n < WIDE_PRODUCTS ? n : WIDE_PRODUCTS;
        uint64_t wide[4];

        x = wide_products(x, tap, tap + 2 * part, wide);
        tap += 2 * part;
        n -= part;
        sums[0] += sign * (int32_t)(wide[0] & WIDE_SUM);
        sums[1] += sign * (int32_t)(wide[1] >> 24);
        sums[2] += sign * (int32_t)(wide[1] & WIDE_SUM);
        sums[3] += sign * (int32_t)(wide[0] >> 24);
        sums[4] += sign * (int32_t)(wide[2] & WIDE_SUM);
        sums[5] += sign * (int32_t)(wide[3] >> 24);
        sums[6] += sign * (int32_t)(wide[3] & WIDE_SUM);
        sums[7] += sign * (int32_t)(wide[2] >> 24);
    }
}
#endif

static void add_taps(const uint8_t *x, uint32_t apart, const uint16_t *tap, uint32_t n, int32_t sign, int32_t *sums)
{
#if PRESS_NN_WIDE
    if (apart == 1) {
        add_wide(x, tap, n, sign, sums);
        return;
    }
#else
    if (apart == 1) {
        add_plain(x, 1, tap, n, sign, sums);
        return;
    }
#endif
    if (apart == 2) {
        add_plain(x, 2, tap, n, sign, sums);
    } else {
        add_plain(x, apart, tap, n, sign, sums);
    }
}

static int32_t bias_of(const press_nn_weights *layer, uint32_t channel)
{
    return layer->wide_bias ? ((const int32_t *)layer->bias)[channel] : ((const int16_t *)layer->bias)[channel];
}

/* Sums of eight outputs, or of one, that start with the bias. */
static void add_products(const uint8_t *x, uint32_t apart, uint32_t n_outputs, const taps *row, int32_t bias,
                         int32_t *sums)
{
    unsigned k;

    if (n_outputs == 1) {
        sums[0] = bias + add_one(x, row->positive, row->n_positive) - add_one(x, row->negative, row->n_negative);
        return;
    }
    for (k = 0; k < BLOCK; k++) {
        sums[k] = bias;
    }
    add_taps(x, apart, row->positive, row->n_positive, 1, sums);
    add_taps(x, apart, row->negative, row->n_negative, -1, sums);
}

/* ---- Layers ---- */

/* Where outputs go. */
typedef struct target {
    const press_nn_planes *planes;
    const press_nn_planes *other; /* NULL: no sum */
    const press_nn_sum *sum;
    int other_first;
} target;

/* Codes of n sums. Bytes may alias anything, so what does not change is copied first. */
static void put_codes(uint8_t *to, const press_nn_weights *layer, press_nn_scale scale, const int32_t *sums, uint32_t n)
{
    const int32_t zero = layer->zero, low = layer->low, high = layer->high;
    uint32_t k;

    for (k = 0; k < n; k++) {
        to[k] = press_nn_code(sums[k], scale, zero, low, high);
    }
}

/* Codes of n sums, added to other codes. */
static void put_added_codes(uint8_t *to, const uint8_t *other, const target *out, const press_nn_weights *layer,
                            press_nn_scale scale, const int32_t *sums, uint32_t n)
{
    const press_nn_sum sum = {out->sum->first, out->sum->second, out->sum->constant,
                              out->sum->shift, out->sum->low, out->sum->high};
    const int32_t zero = layer->zero, low = layer->low, high = layer->high;
    const int other_first = out->other_first;
    uint32_t k;

    for (k = 0; k < n; k++) {
        const uint8_t code = press_nn_code(sums[k], scale, zero, low, high);

        to[k] = other_first ? press_nn_sum_code(other[k], code, &sum) : press_nn_sum_code(code, other[k], &sum);
    }
}

static void conv_plane(uint8_t *arena, const press_nn_weights *layer, const press_nn_planes *from, const target *out,
                       const taps *row, uint32_t channel)
{
    const press_nn_planes *to = out->planes;
    const uint32_t in_row = press_nn_row(from), out_row = press_nn_row(to);
    const uint32_t group = channel / layer->group_outputs;
    const press_nn_scale scale = layer->scale[channel];
    const int32_t bias = bias_of(layer, channel);
    uint32_t rows = to->height, columns = to->width, y, x;
    uint8_t *at = arena + to->place + channel * press_nn_pitch(to);
    const uint8_t *other = out->other ? arena + out->other->place + channel * press_nn_pitch(out->other) : NULL;
    const uint8_t *in = arena + from->place + group * layer->inputs * press_nn_pitch(from) -
                        (layer->pad_top * in_row + layer->pad_left);
    int32_t sums[BLOCK];

    if (in_row == out_row && layer->stride_rows == 1 && layer->stride_columns == 1) {
        columns = (rows - 1) * out_row + columns; /* all rows as one; what falls between them is filled in later */
        rows = 1;
    }
    for (y = 0; y < rows; y++) {
        for (x = 0; x < columns; x += BLOCK) {
            uint32_t n = columns - x < BLOCK ? columns - x : BLOCK;

            add_products(in + x * layer->stride_columns, layer->stride_columns, n, row, bias, sums);
            if (other) {
                put_added_codes(at + x, other + x, out, layer, scale, sums, n);
            } else {
                put_codes(at + x, layer, scale, sums, n);
            }
        }
        in += layer->stride_rows * in_row;
        at += out_row;
        other = other ? other + out_row : NULL;
    }
}

static press_nn_status conv(uint8_t *arena, const press_nn_room *room, const press_nn_weights *layer,
                            const press_nn_planes *from, const target *out)
{
    row_decoder rows;
    taps row;
    press_nn_status status = start_rows(&rows, arena, room, layer, from);
    uint32_t channel;

    for (channel = 0; status == PRESS_NN_OK && channel < layer->outputs; channel++) {
        status = decode_row(&rows, channel, &row);
        if (status == PRESS_NN_OK) {
            conv_plane(arena, layer, from, out, &row, channel);
        }
    }
    press_nn_fill_pads(arena, out->planes);
    return status ? status : end_rows(&rows);
}

press_nn_status press_nn_conv(uint8_t *arena, const press_nn_room *room, const press_nn_weights *weights,
                              const press_nn_planes *from, const press_nn_planes *to)
{
    target out = {to, NULL, NULL, 0};

    return conv(arena, room, weights, from, &out);
}

press_nn_status press_nn_conv_add(uint8_t *arena, const press_nn_room *room, const press_nn_weights *weights,
                                  const press_nn_planes *from, const press_nn_planes *other, const press_nn_sum *sum,
                                  int other_first, const press_nn_planes *to)
{
    target out = {to, other, sum, other_first};

    return conv(arena, room, weights, from, &out);
}

press_nn_status press_nn_conv_values(uint8_t *arena, const press_nn_room *room, const press_nn_weights *layer,
                                     const press_nn_planes *from, press_nn_value *values)
{
    row_decoder rows;
    taps row;
    press_nn_status status = start_rows(&rows, arena, room, layer, from);
    uint32_t channel;

    for (channel = 0; status == PRESS_NN_OK && channel < layer->outputs; channel++) {
        status = decode_row(&rows, channel, &row);
        if (status == PRESS_NN_OK) {
            int32_t sum;

            add_products(arena + from->place, 1, 1, &row, bias_of(layer, channel), &sum);
#if PRESS_NN_INTEGERS
            values[channel] = press_nn_scaled(sum, layer->scale[channel]);
#else
            values[channel] = (float)sum * layer->scale[channel];
#endif
        }
    }
    return status ? status : end_rows(&rows);
}
