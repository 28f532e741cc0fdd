/* Convolutions: weights decoded channel by channel, zeros skipped, several outputs at a time. */
#include "press.h"
#include "press_internal.h"
#include "press_nn_arithmetic.h"

#define BLOCK 8      /* outputs of one row at a time, at least */
#define MOST_BLOCK 16
#define MOST_GROUP 9 /* elements of a mask; sums of signs take three bits of 27 */

/*
 * Four bytes times a weight by two multiplications, each of two bytes 24 bits apart, into sums of 64 bits, where the
 * layer says that 24 bits hold them. It is for processors that multiply and add 32 x 32 to 64 bits at once.
 */
#ifndef PRESS_NN_WIDE
#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
#define PRESS_NN_WIDE 0
#else
#define PRESS_NN_WIDE 1
#endif
#endif
#define WIDE_BYTES 0xFF0000FFu

/* Vectors of four, on cores that have them. */
#ifndef PRESS_NN_HELIUM
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#define PRESS_NN_HELIUM 1
#else
#define PRESS_NN_HELIUM 0
#endif
#endif
#if PRESS_NN_HELIUM
#include <arm_mve.h>
#endif

/* Two 16-bit sums at once, on cores with the DSP extension. */
#ifndef PRESS_NN_DSP
#if defined(__ARM_FEATURE_SIMD32) && __ARM_FEATURE_SIMD32 && defined(__GNUC__)
#define PRESS_NN_DSP 1
#else
#define PRESS_NN_DSP 0
#endif
#endif

/* Whether registers hold eight bytes. */
#ifndef PRESS_NN_LANES_64
#define PRESS_NN_LANES_64 (UINTPTR_MAX > 0xFFFFFFFFu)
#endif

/*
 * Inputs of equal weights added up before they are multiplied, in layers where that takes fewer instructions. With plain
 * operations on 32 bits it takes more.
 */
#ifndef PRESS_NN_BY_VALUE
#define PRESS_NN_BY_VALUE (!PRESS_NN_HELIUM && (PRESS_NN_DSP || PRESS_NN_LANES_64))
#endif
#if PRESS_NN_BY_VALUE
#include "press_nn_by_value.h"
#endif

/* What runs once a layer, or for few weights, is compiled for size; nothing else may always come by it. */
#if defined(__GNUC__)
#define RARE __attribute__((noinline, cold))
#else
#define RARE
#endif
#if defined(__GNUC__) && PRESS_NN_BY_VALUE
#define MAYBE_RARE __attribute__((noinline))
#else
#define MAYBE_RARE inline
#endif

/* ---- Weights of one output channel ---- */

/*
 * Those that are not zero, as pairs: a step from the place of one to that of the next, and a magnitude. The positive
 * ones come first; the negative ones end where the room does.
 */
typedef struct taps {
    uint16_t *positive, *negative;
    uint32_t n_positive, n_negative;
#if PRESS_NN_BY_VALUE
    value_row by_value; /* in place of all that, where the layer says so */
#endif
} taps;

/* Codewords of up to eight bits: for every window the number of a value, and below it four bits of length. */
typedef struct level_code {
    const uint16_t *windows;
    uint32_t mask;
    const int8_t *values; /* of the first number that has a codeword */
    uint32_t lowest;      /* that number */
} level_code;

typedef struct row_decoder {
    const press_nn_weights *layer;
    const press_nn_room *room;
    press_stream stream;
    press_lookup masks;
    level_code levels[5];           /* by the sum of two signs, plus two */
    uint32_t spread[MOST_GROUP];    /* what a weight adds to the sums of those to its right and below */
    uint32_t group_start;           /* all sums at nothing */
    uint16_t *mask_of;
    uint16_t *taps;
    uint32_t *place_of; /* of the elements that masks speak of, until they repeat in the next planes */
    uint32_t n_places, next; /* how many; and from there to the next ones */
} row_decoder;

/* Two ends of one list of taps. */
typedef struct tap_writer {
    uint16_t *low, *high; /* where the next ones go: two numbers upwards, two downwards */
    uint32_t at_positive, at_negative;
    uint8_t *numbers; /* of values, where places are ordered by them: then `low` and `high` bound places alone */
} tap_writer;

static inline void put_pair(tap_writer *out, int is_positive, uint32_t step, uint32_t weight)
{
    uint16_t *pair = is_positive ? out->low : out->high - 2;

    pair[0] = (uint16_t)step;
    pair[1] = (uint16_t)weight;
    if (is_positive) {
        out->low += 2;
    } else {
        out->high -= 2;
    }
}

/* Steps of more than 16 bits take several taps, of weight 0. Returns what is left of the step. */
static uint32_t put_far(tap_writer *out, int is_positive, uint32_t step)
{
    while (step > 0xFFFF && out->low != out->high) {
        put_pair(out, is_positive, 0xFFFF, 0);
        step -= 0xFFFF;
    }
    return step;
}

/* With its step from the last one of its sign. */
static MAYBE_RARE press_nn_status put_signed(tap_writer *out, uint32_t place, int weight)
{
    uint32_t step = place - (weight > 0 ? out->at_positive : out->at_negative);

    if (step > 0xFFFF) {
        step = put_far(out, weight > 0, step);
    }
    if (out->low == out->high) {
        return PRESS_NN_DAMAGED;
    }
    if (weight > 0) {
        out->at_positive = place;
        put_pair(out, 1, step, (uint32_t)weight);
    } else {
        out->at_negative = place;
        put_pair(out, 0, step, (uint32_t)-weight);
    }
    return PRESS_NN_OK;
}

static inline press_nn_status put_tap(tap_writer *out, uint32_t place, uint32_t number, int weight)
{
#if PRESS_NN_BY_VALUE
    if (out->numbers) {
        if (out->low == out->high) {
            return PRESS_NN_DAMAGED;
        }
        *out->low++ = (uint16_t)place;
        *out->numbers++ = (uint8_t)number;
        return PRESS_NN_OK;
    }
#else
    (void)number;
#endif
    return put_signed(out, place, weight);
}

static int goes_by_value(const press_nn_weights *layer)
{
#if PRESS_NN_BY_VALUE
    return layer->by_value;
#else
    (void)layer;
    return 0;
#endif
}

static tap_writer start_taps(const row_decoder *rows)
{
    tap_writer out;

    out.low = rows->taps;
    out.high = rows->taps + 2 * rows->room->n_taps;
    out.at_positive = out.at_negative = 0;
    out.numbers = NULL;
    if (goes_by_value(rows->layer)) { /* places take half of the room, numbers a quarter */
        out.high = rows->taps + rows->room->n_taps;
        out.numbers = (uint8_t *)out.high;
    }
    return out;
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
static RARE press_nn_status read_table(const uint8_t **table, uint32_t *size, press_lookup *lookup, uint8_t *arena,
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

static void start_signs(row_decoder *rows)
{
    const uint32_t width = rows->layer->kernel_width;
    uint32_t k;

    rows->group_start = 0;
    for (k = 0; k < MOST_GROUP; k++) {
        rows->group_start |= 2u << 3 * k;
        rows->spread[k] = (k + 1 < MOST_GROUP && (k + 1) % width ? 1u << 3 * (k + 1) : 0) +
                          (k + width < MOST_GROUP ? 1u << 3 * (k + width) : 0);
    }
}

static RARE press_nn_status read_tables(row_decoder *rows, uint8_t *arena)
{
    const press_nn_weights *layer = rows->layer;
    const uint8_t *table = layer->masks;
    uint32_t size = layer->masks_size, used = 0, k;
    press_nn_status status = read_table(&table, &size, &rows->masks, arena, rows->room, &used);

    if (status || rows->masks.code.lowest < 0 ||
        (uint32_t)rows->masks.code.lowest + rows->masks.code.n > (uint32_t)1 << layer->group) {
        return PRESS_NN_DAMAGED;
    }
    table = layer->levels;
    size = layer->levels_size;
    for (k = 0; status == PRESS_NN_OK && k < 5; k += 2) { /* negative, zero, positive */
        level_code *code = &rows->levels[k];
        press_lookup lookup;

        if (k && layer->contexts == 1) {
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
        code->values = layer->values + lookup.code.lowest;
        code->lowest = (uint32_t)lookup.code.lowest;
        if (lookup.code.used < 2) { /* one number, whose codeword is empty */
            lookup.single[0] = (uint16_t)(lookup.code.only << 4);
        }
    }
    rows->levels[1] = rows->levels[0];
    rows->levels[3] = rows->levels[4];
    start_signs(rows);
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

    if (n_masks > rows->room->n_masks) {
        return PRESS_NN_DAMAGED;
    }
    for (k = 0; rows->masks.code.used < 2 && k < n_masks; k++) { /* one mask, whose codeword is empty */
        rows->mask_of[k] = rows->masks.code.only;
    }
    if (k == 0 && press_take_symbols(&rows->stream, &rows->masks, n_masks, 1, rows->mask_of) != PRESS_OK) {
        return PRESS_NN_DAMAGED;
    }
    for (k = 0; rows->masks.code.lowest && k < n_masks; k++) {
        rows->mask_of[k] = (uint16_t)(rows->mask_of[k] + rows->masks.code.lowest);
    }
    /* the last group may be shorter; of the others the code table tells enough */
    return rows->mask_of[n_masks - 1] >> (n - (n_masks - 1) * group) ? PRESS_NN_DAMAGED : PRESS_NN_OK;
}

/* The next 32 bits of a stream, or what there is of them. */
static inline uint32_t window_at(const press_stream *stream, size_t at)
{
    return at + 4 <= stream->size ? press_load32(stream->data + at)
                                  : (uint32_t)press_load64_within(stream->data, stream->size, at);
}

/* Number of the lowest bit that is set. */
static inline uint32_t lowest_bit(uint32_t mask)
{
#ifdef __GNUC__
    return (uint32_t)__builtin_ctz(mask);
#else
    uint32_t bit = 0;

    for (; !(mask & 1); mask >>= 1) {
        bit++;
    }
    return bit;
#endif
}

/* The taps of one group of weights, `place` being those of its elements. */
static inline press_nn_status taps_of_group(row_decoder *rows, uint32_t mask, const uint32_t *place, uint32_t plane,
                                            uint32_t values, tap_writer *out)
{
    size_t at = (size_t)(rows->stream.position >> 3);
    uint32_t bit = (uint32_t)rows->stream.position & 7;
    uint32_t signs = rows->group_start;

    for (; mask; mask &= mask - 1) {
        const uint32_t tap = lowest_bit(mask);
        const level_code *code = &rows->levels[signs >> 3 * tap & 7];
        const uint32_t entry = code->windows[window_at(&rows->stream, at) >> bit & code->mask];
        const int value = code->values[values + (entry >> 4)];

        if (put_tap(out, plane + place[tap], code->lowest + (entry >> 4), value)) {
            return PRESS_NN_DAMAGED;
        }
        signs += value < 0 ? 0u - rows->spread[tap] : rows->spread[tap];
        bit += entry & 15;
        at += bit >> 3;
        bit &= 7;
    }
    rows->stream.position = 8 * (uint64_t)at + bit;
    return PRESS_NN_OK;
}

/* `values`: where those of this output channel begin. */
static press_nn_status taps_of_masks(row_decoder *rows, uint32_t values, uint32_t n, tap_writer *out)
{
    const uint32_t *place = rows->place_of, *const last = place + rows->n_places;
    uint32_t plane = 0, k, at;

    for (k = 0, at = 0; at < n; k++, at += rows->layer->group) {
        if (rows->mask_of[k] && taps_of_group(rows, rows->mask_of[k], place, plane, values, out)) {
            return PRESS_NN_DAMAGED;
        }
        place += rows->layer->group;
        if (place >= last) {
            place = rows->place_of;
            plane += rows->next;
        }
    }
    return rows->stream.position <= 8 * (uint64_t)rows->stream.size ? PRESS_NN_OK : PRESS_NN_DAMAGED;
}

static RARE press_nn_status taps_of_packed(row_decoder *rows, const int8_t *values, uint32_t channel, uint32_t n,
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
            press_nn_status status = put_tap(out, plane + rows->place_of[tap], number, value);

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
    const uint32_t values = layer->values_differ ? channel * layer->n_values : 0;
    tap_writer out = start_taps(rows);
    press_nn_status status;

    if (layer->coding == PRESS_NN_HUFFMAN) {
        status = decode_masks(rows, n);
        status = status ? status : taps_of_masks(rows, values, n, &out);
    } else {
        status = taps_of_packed(rows, layer->values ? layer->values + values : NULL, channel, n, &out);
    }
#if PRESS_NN_BY_VALUE
    if (out.numbers) {
        order_by_value(&row->by_value, rows->taps, (uint8_t *)out.high, (uint32_t)(out.low - rows->taps),
                       layer->values + values, layer->n_values);
        return status;
    }
#endif
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

/* The judge of the others: adds to the sums of eight outputs, which lie `apart` in the input. */
static inline void add_plain(const uint8_t *x, uint32_t apart, const taps *row, int32_t *sums)
{
    const uint16_t *tap = row->positive;
    uint32_t n = row->n_positive;
    int32_t sign;

    for (sign = 1; sign >= -1; sign -= 2, tap = row->negative, n = row->n_negative) {
        const uint8_t *at = x;
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;

        for (; n; n--, tap += 2) {
            const int32_t weight = tap[1];

            at += tap[0];
            s0 += at[0] * weight;
            s1 += at[apart] * weight;
            s2 += at[2 * apart] * weight;
            s3 += at[3 * apart] * weight;
            s4 += at[4 * apart] * weight;
            s5 += at[5 * apart] * weight;
            s6 += at[6 * apart] * weight;
            s7 += at[7 * apart] * weight;
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
}

#if PRESS_NN_HELIUM
/* Eight outputs side by side in two vectors; any weights. */
static void add_vectors(const uint8_t *x, const taps *row, int32_t bias, int32_t *sums)
{
    int32x4_t low = vdupq_n_s32(bias), high = low;
    const uint16_t *tap = row->positive;
    uint32_t n = row->n_positive;
    int32_t sign;

    for (sign = 1; sign >= -1; sign -= 2, tap = row->negative, n = row->n_negative) {
        const uint8_t *at = x;

        for (; n; n--, tap += 2) {
            const int32_t weight = sign * tap[1];

            at += tap[0];
            low = vmlaq_n_s32(low, vreinterpretq_s32_u32(vldrbq_u32(at)), weight);
            high = vmlaq_n_s32(high, vreinterpretq_s32_u32(vldrbq_u32(at + 4)), weight);
        }
    }
    vst1q_s32(sums, low);
    vst1q_s32(sums + 4, high);
}
#endif

#if PRESS_NN_WIDE && !PRESS_NN_HELIUM
/*
 * Fourteen registers hold all of the loop if the compiler neither moves loads forward nor adds pointers: then it takes
 * sixteen instructions for eight products on ARM.
 */
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((noinline, optimize("no-schedule-insns", "no-ivopts")))
#endif
static void wide_products(const uint8_t *x, const uint16_t *tap, uint32_t n, uint64_t *wide)
{
    const uint16_t *const end = tap + 2 * n;
    uint64_t s0 = wide[0], s1 = wide[1], s2 = wide[2], s3 = wide[3];

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
    wide[0] = s0;
    wide[1] = s1;
    wide[2] = s2;
    wide[3] = s3;
}

/* The lower 24 bits of a sum of two, with their sign; and what is above them. */
static inline int32_t lower_sum(uint64_t wide)
{
    const uint32_t low = (uint32_t)wide & 0xFFFFFFu;

    return (int32_t)(low ^ 0x800000u) - 0x800000;
}

static inline int32_t upper_sum(uint64_t wide)
{
    return (int32_t)(uint32_t)((wide + 0x800000u) >> 24);
}

static void add_wide(const uint8_t *x, const taps *row, int32_t bias, int32_t *sums)
{
    uint64_t wide[4];

    wide[0] = wide[1] = wide[2] = wide[3] = 0;
    wide_products(x, row->negative, row->n_negative, wide);
    wide[0] = 0 - wide[0];
    wide[1] = 0 - wide[1];
    wide[2] = 0 - wide[2];
    wide[3] = 0 - wide[3];
    wide_products(x, row->positive, row->n_positive, wide);
    sums[0] = bias + lower_sum(wide[0]);
    sums[1] = bias + upper_sum(wide[1]);
    sums[2] = bias + lower_sum(wide[1]);
    sums[3] = bias + upper_sum(wide[0]);
    sums[4] = bias + lower_sum(wide[2]);
    sums[5] = bias + upper_sum(wide[3]);
    sums[6] = bias + lower_sum(wide[3]);
    sums[7] = bias + upper_sum(wide[2]);
}
#endif

/* What a sum starts with, and what it is multiplied by. */
typedef struct channel_terms {
    int32_t bias;
    press_nn_scale scale;
} channel_terms;

static uint32_t take_bits(const uint8_t *data, uint32_t *at, uint32_t n)
{
    uint32_t value = 0, done = 0;

    while (done < n) {
        const uint32_t bit = *at & 7, left = n - done, some = 8 - bit < left ? 8 - bit : left;

        value |= ((uint32_t)data[*at >> 3] >> bit & ((1u << some) - 1)) << done;
        done += some;
        *at += some;
    }
    return value;
}

static channel_terms terms_of(const press_nn_weights *layer, uint32_t channel)
{
    uint32_t at = channel * ((uint32_t)layer->bias_bits + layer->factor_bits), factor;
    channel_terms terms;

    terms.bias = (int32_t)((uint32_t)layer->least_bias + take_bits(layer->channels, &at, layer->bias_bits));
    factor = layer->least_factor + take_bits(layer->channels, &at, layer->factor_bits);
    memcpy(&terms.scale, &factor, sizeof factor);
    return terms;
}

/* Sums of eight outputs, or of one, that start with the bias. */
static void add_products(const uint8_t *x, const press_nn_weights *layer, uint32_t n_outputs, const taps *row,
                         int32_t bias, int32_t *sums)
{
    const uint32_t apart = layer->stride_columns;
    unsigned k;

#if PRESS_NN_BY_VALUE
    if (layer->by_value) {
        add_by_value(x, &row->by_value, apart, bias, sums);
        return;
    }
#endif
    if (n_outputs == 1) {
        sums[0] = bias + add_one(x, row->positive, row->n_positive) - add_one(x, row->negative, row->n_negative);
        return;
    }
#if PRESS_NN_HELIUM
    if (apart == 1) {
        add_vectors(x, row, bias, sums);
        return;
    }
#elif PRESS_NN_WIDE
    if (apart == 1 && layer->fits_wide) {
        add_wide(x, row, bias, sums);
        return;
    }
#endif
    for (k = 0; k < BLOCK; k++) {
        sums[k] = bias;
    }
    add_plain(x, apart, row, sums);
}

/* ---- Layers ---- */

/* Where outputs go. */
typedef struct target {
    const press_nn_planes *planes;
    const press_nn_planes *other; /* NULL: no sum */
    const press_nn_terms *sum;
    int other_first;
} target;

/* Codes of n sums. Bytes may alias anything, so what does not change is copied first. */
static void put_codes(uint8_t *to, const press_nn_weights *layer, press_nn_factor scale, const int32_t *sums, uint32_t n)
{
    const int32_t zero = layer->zero, low = layer->low, high = layer->high;
    uint32_t k;

    for (k = 0; k < n; k++) {
        to[k] = press_nn_code(sums[k], scale, zero, low, high);
    }
}

/* Codes of n sums, added to other codes. */
static void put_added_codes(uint8_t *to, const uint8_t *other, const target *out, const press_nn_weights *layer,
                            press_nn_factor scale, const int32_t *sums, uint32_t n)
{
    const press_nn_terms sum = *out->sum;
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
    const channel_terms terms = terms_of(layer, channel);
    const press_nn_factor scale = press_nn_factor_of(terms.scale);
    uint32_t rows = to->height, columns = to->width, y, x;
    uint8_t *at = arena + to->place + channel * press_nn_pitch(to);
    const uint8_t *other = out->other ? arena + out->other->place + channel * press_nn_pitch(out->other) : NULL;
    const uint8_t *in = arena + from->place + group * layer->inputs * press_nn_pitch(from) -
                        (layer->pad_top * in_row + layer->pad_left);
    const uint32_t block = goes_by_value(layer) && layer->stride_columns == 1 ? MOST_BLOCK : BLOCK;
    int32_t sums[MOST_BLOCK];

    if (in_row == out_row && layer->stride_rows == 1 && layer->stride_columns == 1) {
        columns = (rows - 1) * out_row + columns; /* all rows as one; what falls between them is filled in later */
        rows = 1;
    }
    for (y = 0; y < rows; y++) {
        for (x = 0; x < columns; x += block) {
            uint32_t n = columns - x < block ? columns - x : block;

            add_products(in + x * layer->stride_columns, layer, n, row, terms.bias, sums);
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
    const press_nn_terms terms = press_nn_terms_of(sum);
    target out = {to, other, &terms, other_first};

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
            const channel_terms terms = terms_of(layer, channel);
            int32_t sum;

            add_products(arena + from->place, layer, 1, &row, terms.bias, &sum);
#if PRESS_NN_INTEGERS
            values[channel] = press_nn_exact_value(sum, terms.scale);
#else
            values[channel] = (float)sum * terms.scale;
#endif
        }
    }
    return status ? status : end_rows(&rows);
}
