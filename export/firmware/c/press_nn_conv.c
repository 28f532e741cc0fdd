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

/* Those that are not zero: places as steps from one to the next, magnitudes; the positive ones, then the negative. */
typedef struct taps {
    uint16_t *steps;
    uint8_t *weights;
    uint32_t n_positive, n_negative, room;
    uint32_t at_positive, at_negative; /* places of the last */
} taps;

typedef struct row_decoder {
    const press_nn_weights *layer;
    press_stream stream;
    press_lookup masks, levels;
    uint16_t *mask_of;
    uint8_t *level_of;
    uint32_t *place_of; /* of a kernel's taps */
    uint32_t pitch;     /* of the input's planes */
    taps row;
} row_decoder;

static press_nn_status put_tap(taps *row, uint32_t place, int weight)
{
    uint32_t *last = weight > 0 ? &row->at_positive : &row->at_negative;

    for (;;) { /* a step of more than 16 bits takes several */
        uint32_t step = place - *last, at;

        if (row->n_positive + row->n_negative >= row->room) {
            return PRESS_NN_DAMAGED;
        }
        at = weight > 0 ? row->n_positive++ : row->room - ++row->n_negative;
        row->steps[at] = (uint16_t)(step < 0xFFFF ? step : 0xFFFF);
        row->weights[at] = (uint8_t)(step <= 0xFFFF ? (weight > 0 ? weight : -weight) : 0);
        *last += step < 0xFFFF ? step : 0xFFFF;
        if (step <= 0xFFFF) {
            return PRESS_NN_OK;
        }
    }
}

/* The negative ones were put in from the end on: turn them round. */
static void turn_negative(taps *row)
{
    uint32_t i = row->room - row->n_negative, k = row->room - 1;

    for (; i < k; i++, k--) {
        uint16_t step = row->steps[i];
        uint8_t weight = row->weights[i];

        row->steps[i] = row->steps[k];
        row->weights[i] = row->weights[k];
        row->steps[k] = step;
        row->weights[k] = weight;
    }
}

static press_nn_status read_table(const uint8_t *table, uint16_t size, press_lookup *lookup, const press_nn_room *room,
                                  uint8_t *arena, uint32_t *used)
{
    press_code code;
    size_t taken;

    if (press_read_code(table, size, &code, &taken) != PRESS_OK ||
        *used + press_lookup_size(&code, 0) > room->lookups_size) {
        return PRESS_NN_DAMAGED;
    }
    press_make_lookup(lookup, &code, arena + room->lookups + *used, 0);
    *used += (uint32_t)press_lookup_size(&code, 0);
    return PRESS_NN_OK;
}

static press_nn_status start_rows(row_decoder *rows, uint8_t *arena, const press_nn_room *room,
                                  const press_nn_weights *layer, const press_nn_planes *from)
{
    uint32_t used = 0, y, x;

    rows->layer = layer;
    rows->stream.data = layer->codes;
    rows->stream.size = layer->codes_size;
    rows->stream.position = 0;
    rows->mask_of = (uint16_t *)(void *)(arena + room->masks);
    rows->level_of = arena + room->levels;
    rows->place_of = (uint32_t *)(void *)(arena + room->places);
    rows->pitch = press_nn_pitch(from);
    rows->row.steps = (uint16_t *)(void *)(arena + room->steps);
    rows->row.weights = arena + room->weights;
    rows->row.room = room->n_taps;
    for (y = 0; y < layer->kernel_height; y++) {
        for (x = 0; x < layer->kernel_width; x++) {
            rows->place_of[y * layer->kernel_width + x] =
                y * layer->dilation_rows * press_nn_row(from) + x * layer->dilation_columns;
        }
    }
    if (layer->coding == PRESS_NN_HUFFMAN) {
        press_nn_status status = read_table(layer->masks, layer->masks_size, &rows->masks, room, arena, &used);

        return status ? status : read_table(layer->levels, layer->levels_size, &rows->levels, room, arena, &used);
    }
    return PRESS_NN_OK;
}

static int value_of(const press_nn_weights *layer, uint32_t channel, unsigned number)
{
    if (layer->values == NULL) {
        return (int)number - 128;
    }
    return layer->values[(layer->values_differ ? channel * layer->n_values : 0) + number];
}

/* Masks, then the numbers of all that is not zero. */
static press_nn_status decode_huffman(row_decoder *rows, uint32_t n, const press_nn_room *room)
{
    const press_nn_weights *layer = rows->layer;
    uint32_t n_masks = (n + layer->group - 1) / layer->group, n_levels = 0, k;

    if (n_masks > room->n_masks ||
        press_take_run(&rows->stream, &rows->masks, n_masks, 1, rows->mask_of) != PRESS_OK) {
        return PRESS_NN_DAMAGED;
    }
    for (k = 0; k < n_masks; k++) {
        uint32_t mask = (uint32_t)((int32_t)rows->mask_of[k] + rows->masks.code.lowest);

        if (mask >> (k + 1 < n_masks ? layer->group : n - k * layer->group)) {
            return PRESS_NN_DAMAGED;
        }
        rows->mask_of[k] = (uint16_t)mask;
        for (; mask; mask &= mask - 1) {
            n_levels++;
        }
    }
    if (n_levels > room->n_levels || rows->levels.code.lowest < 0 ||
        (uint32_t)rows->levels.code.lowest + rows->levels.code.n > layer->n_values ||
        press_take_run(&rows->stream, &rows->levels, n_levels, 0, rows->level_of) != PRESS_OK) {
        return PRESS_NN_DAMAGED;
    }
    return PRESS_NN_OK;
}

static press_nn_status taps_of_masks(row_decoder *rows, uint32_t channel, uint32_t n)
{
    const press_nn_weights *layer = rows->layer;
    const unsigned n_taps = (unsigned)layer->kernel_height * layer->kernel_width;
    const unsigned lowest = (unsigned)rows->levels.code.lowest;
    const uint8_t *level = rows->level_of;
    uint32_t plane = 0, k, at;
    unsigned tap = 0;

    for (k = 0, at = 0; at < n; k++, at += layer->group) {
        uint32_t mask = rows->mask_of[k];
        unsigned left = layer->group;

        for (; mask; mask >>= 1, left--) {
            if (mask & 1) {
                press_nn_status status =
                    put_tap(&rows->row, plane + rows->place_of[tap], value_of(layer, channel, *level++ + lowest));

                if (status) {
                    return status;
                }
            }
            if (++tap == n_taps) {
                tap = 0;
                plane += rows->pitch;
            }
        }
        for (tap += left; tap >= n_taps; tap -= n_taps) {
            plane += rows->pitch;
        }
    }
    return PRESS_NN_OK;
}

static press_nn_status taps_of_packed(row_decoder *rows, uint32_t channel, uint32_t n)
{
    const press_nn_weights *layer = rows->layer;
    const unsigned n_taps = (unsigned)layer->kernel_height * layer->kernel_width;
    uint32_t bit = channel * n * layer->bits, plane = 0, k;
    unsigned tap = 0;

    if (bit + n * layer->bits > 8 * layer->codes_size) {
        return PRESS_NN_DAMAGED;
    }
    for (k = 0; k < n; k++, bit += layer->bits) {
        const uint8_t *at = layer->codes + (bit >> 3);
        unsigned number = at[0], value_bits = (1u << layer->bits) - 1;
        int value;

        if ((bit & 7) + layer->bits > 8) {
            number |= (unsigned)at[1] << 8;
        }
        number = number >> (bit & 7) & value_bits;
        if (number >= layer->n_values) {
            return PRESS_NN_DAMAGED;
        }
        value = value_of(layer, channel, number);
        if (value) {
            press_nn_status status = put_tap(&rows->row, plane + rows->place_of[tap], value);

            if (status) {
                return status;
            }
        }
        if (++tap == n_taps) {
            tap = 0;
            plane += rows->pitch;
        }
    }
    return PRESS_NN_OK;
}

static press_nn_status decode_row(row_decoder *rows, uint32_t channel, const press_nn_room *room)
{
    const press_nn_weights *layer = rows->layer;
    uint32_t n = (uint32_t)layer->inputs * layer->kernel_height * layer->kernel_width;
    press_nn_status status;

    rows->row.n_positive = rows->row.n_negative = 0;
    rows->row.at_positive = rows->row.at_negative = 0;
    if (layer->coding == PRESS_NN_HUFFMAN) {
        status = decode_huffman(rows, n, room);
        status = status ? status : taps_of_masks(rows, channel, n);
    } else {
        status = taps_of_packed(rows, channel, n);
    }
    turn_negative(&rows->row);
    return status;
}

/* ---- Products ---- */

static int32_t add_one(const uint8_t *x, const uint16_t *steps, const uint8_t *weights, uint32_t n)
{
    int32_t sum = 0;

    for (; n; n--) {
        x += *steps++;
        sum += *x * *weights++;
    }
    return sum;
}

/* The judge of the others; outputs may lie `apart` in the input. */
static void add_plain(const uint8_t *x, uint32_t apart, const uint16_t *steps, const uint8_t *weights, uint32_t n,
                      int32_t *sums)
{
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;

    for (; n; n--) {
        int32_t weight = *weights++;
        const uint8_t *at;

        x += *steps++;
        at = x;
        s0 += *at * weight;
        at += apart;
        s1 += *at * weight;
        at += apart;
        s2 += *at * weight;
        at += apart;
        s3 += *at * weight;
        at += apart;
        s4 += *at * weight;
        at += apart;
        s5 += *at * weight;
        at += apart;
        s6 += *at * weight;
        at += apart;
        s7 += *at * weight;
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
    sums[4] = s4;
    sums[5] = s5;
    sums[6] = s6;
    sums[7] = s7;
}

#if PRESS_NN_WIDE
static void add_wide(const uint8_t *x, const uint16_t *steps, const uint8_t *weights, uint32_t n, int32_t *sums)
{
    memset(sums, 0, BLOCK * sizeof *sums);
    while (n) {
        uint32_t part = n < WIDE_PRODUCTS ? n : WIDE_PRODUCTS;
        uint64_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;

        n -= part;
        for (; part; part--) {
            uint32_t weight = *weights++, low, high;

            x += *steps++;
            low = press_load32(x);
            high = press_load32(x + 4);
            s0 += (uint64_t)(low & WIDE_BYTES) * weight;
            s1 += (uint64_t)((low >> 16 | low << 16) & WIDE_BYTES) * weight;
            s2 += (uint64_t)(high & WIDE_BYTES) * weight;
            s3 += (uint64_t)((high >> 16 | high << 16) & WIDE_BYTES) * weight;
        }
        sums[0] += (int32_t)(s0 & WIDE_SUM);
        sums[3] += (int32_t)(s0 >> 24);
        sums[2] += (int32_t)(s1 & WIDE_SUM);
        sums[1] += (int32_t)(s1 >> 24);
        sums[4] += (int32_t)(s2 & WIDE_SUM);
        sums[7] += (int32_t)(s2 >> 24);
        sums[6] += (int32_t)(s3 & WIDE_SUM);
        sums[5] += (int32_t)(s3 >> 24);
    }
}
#endif

/* Sums of eight outputs, or of one. */
static void add_products(const uint8_t *x, uint32_t apart, uint32_t n_outputs, const taps *row, int32_t *sums)
{
    const uint16_t *steps = row->steps + row->room - row->n_negative;
    const uint8_t *weights = row->weights + row->room - row->n_negative;
    int32_t less[BLOCK];
    unsigned k;

    if (n_outputs == 1) {
        sums[0] = add_one(x, row->steps, row->weights, row->n_positive) - add_one(x, steps, weights, row->n_negative);
        return;
    }
#if PRESS_NN_WIDE
    if (apart == 1) {
        add_wide(x, row->steps, row->weights, row->n_positive, sums);
        add_wide(x, steps, weights, row->n_negative, less);
    } else
#endif
    {
        add_plain(x, apart, row->steps, row->weights, row->n_positive, sums);
        add_plain(x, apart, steps, weights, row->n_negative, less);
    }
    for (k = 0; k < BLOCK; k++) {
        sums[k] -= less[k];
    }
}

/* ---- Layers ---- */

/* Where outputs go. */
typedef struct target {
    const press_nn_planes *planes;
    const press_nn_planes *other; /* NULL: no sum */
    const press_nn_sum *sum;
    int other_first;
} target;

static void put_codes(uint8_t *to, const uint8_t *other, const target *out, const press_nn_weights *layer,
                      press_nn_scale scale, int32_t bias, const int32_t *sums, uint32_t n)
{
    const int32_t zero = layer->zero, low = layer->low, high = layer->high;
    uint32_t k;

    for (k = 0; k < n; k++) {
        uint8_t code = press_nn_code(sums[k] + bias, scale, zero, low, high);

        if (other) {
            code = out->other_first ? press_nn_sum_code(other[k], code, out->sum)
                                    : press_nn_sum_code(code, other[k], out->sum);
        }
        to[k] = code;
    }
}

static void conv_plane(uint8_t *arena, const press_nn_weights *layer, const press_nn_planes *from, const target *out,
                       const taps *row, uint32_t channel)
{
    const press_nn_planes *to = out->planes;
    const uint32_t in_row = press_nn_row(from), out_row = press_nn_row(to);
    const uint32_t group = channel / layer->group_outputs;
    const press_nn_scale scale = layer->scale[channel];
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

            add_products(in + x * layer->stride_columns, layer->stride_columns, n, row, sums);
            put_codes(at + x, other ? other + x : NULL, out, layer, scale, layer->bias[channel], sums, n);
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
    press_nn_status status = start_rows(&rows, arena, room, layer, from);
    uint32_t channel;

    for (channel = 0; status == PRESS_NN_OK && channel < layer->outputs; channel++) {
        status = decode_row(&rows, channel, room);
        if (status == PRESS_NN_OK) {
            conv_plane(arena, layer, from, out, &rows.row, channel);
        }
    }
    press_nn_fill_pads(arena, out->planes);
    return status;
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
    press_nn_status status = start_rows(&rows, arena, room, layer, from);
    uint32_t channel;

    for (channel = 0; status == PRESS_NN_OK && channel < layer->outputs; channel++) {
        status = decode_row(&rows, channel, room);
        if (status == PRESS_NN_OK) {
            int32_t sum;

            add_products(arena + from->place, 1, 1, &rows.row, &sum);
            sum += layer->bias[channel];
#if PRESS_NN_INTEGERS
            values[channel] = press_nn_scaled(sum, layer->scale[channel]);
#else
            values[channel] = (float)sum * layer->scale[channel];
#endif
        }
    }
    return status;
}
