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

/* Whether layers that do not go by value have kernels of their own, which take flash. */
#define FEW_PRODUCTS (PRESS_NN_FEW_PRODUCTS && PRESS_NN_BY_VALUE)

/* What runs once a layer, or for few weights, is compiled for size; nothing else may always come by it. */
#if defined(__GNUC__)
#define RARE __attribute__((noinline, cold))
#define APART __attribute__((noinline)) /* what calls it is not rare */
#else
#define RARE
#define APART
#endif
#if defined(__GNUC__) && PRESS_NN_BY_VALUE
#define MAYBE_RARE __attribute__((noinline))
#else
#define MAYBE_RARE inline
#endif

/* ---- Biases and factors ---- */

/* What a sum starts with, and what it is multiplied by. */
typedef struct channel_terms {
    int32_t bias;
    press_nn_scale scale;
} channel_terms;

static uint32_t channel_bits_of(const press_nn_weights *layer)
{
    return (uint32_t)layer->bias_bits + layer->factor_bits + layer->more_bits;
}

static APART uint32_t take_bits(const uint8_t *data, uint32_t *at, uint32_t n)
{
    uint32_t value = 0, done;

    for (done = 0; done < n; done++, ++*at) {
        value |= ((uint32_t)data[*at >> 3] >> (*at & 7) & 1u) << done;
    }
    return value;
}

/* The bits of the product of two floats above 0, rounded down. */
static uint32_t product_bits(uint32_t a, uint32_t b)
{
    const uint64_t part = (uint64_t)((a & 0x7FFFFFu) | 0x800000u) * ((b & 0x7FFFFFu) | 0x800000u);
    const uint32_t carry = (uint32_t)(part >> 47);

    return (((a >> 23) + (b >> 23) + carry - 127) << 23) | ((uint32_t)(part >> 23 >> carry) & 0x7FFFFFu);
}

static APART channel_terms terms_of(const press_nn_weights *layer, uint32_t channel)
{
    uint32_t at = channel * channel_bits_of(layer), factor;
    channel_terms terms;

    terms.bias = (int32_t)((uint32_t)layer->least_bias + take_bits(layer->data, &at, layer->bias_bits));
    factor = layer->least_factor + take_bits(layer->data, &at, layer->factor_bits);
    if (layer->unit) {
        const int32_t least_more = layer->least_more;

        factor = product_bits(factor << PRESS_NN_SHORT, layer->unit) + (uint32_t)least_more;
        factor += take_bits(layer->data, &at, layer->more_bits);
    }
    memcpy(&terms.scale, &factor, sizeof factor);
    return terms;
}

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
    const press_nn_window *window;
    const press_nn_room *room;
    const int8_t *values; /* NULL: numbers less 128 */
    const uint8_t *codes;
    uint32_t size, at, bit; /* of the codes, and the next one: byte and bit */
    press_lookup masks;
    level_code levels[5];           /* by the sum of two signs, plus two */
    uint32_t spread[MOST_GROUP];    /* what a weight adds to the sums of those to its right and below */
    uint32_t group_start;           /* all sums at nothing */
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
    return layer->facts & PRESS_NN_ADDS_BY_VALUE;
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
    const uint32_t width = rows->window->width;
    uint32_t k;

    rows->group_start = 0;
    for (k = 0; k < MOST_GROUP; k++) {
        rows->group_start |= 2u << 3 * k;
        rows->spread[k] = (k + 1 < MOST_GROUP && (k + 1) % width ? 1u << 3 * (k + 1) : 0) +
                          (k + width < MOST_GROUP ? 1u << 3 * (k + width) : 0);
    }
}

/* The code tables of masks and of numbers; the codes begin behind these. */
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
    for (k = 0; status == PRESS_NN_OK && k < 5; k += 2) { /* negative, zero, positive */
        level_code *code = &rows->levels[k];
        press_lookup lookup;

        if (k && !(layer->facts & PRESS_NN_HAS_CONTEXTS)) {
            *code = rows->levels[0];
            continue;
        }
        status = read_table(&rows->codes, &rows->size, &lookup, arena, rows->room, &used);
        if (status || lookup.code.lowest < 0 || lookup.code.width > PRESS_SINGLE_BITS ||
            (uint32_t)lookup.code.lowest + lookup.code.n > layer->n_values) {
            return PRESS_NN_DAMAGED;
        }
        code->windows = lookup.single;
        code->mask = lookup.code.used < 2 ? 0 : ((uint32_t)1 << lookup.bits) - 1;
        code->values = rows->values + lookup.code.lowest;
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

static press_nn_status start_rows(row_decoder *rows, uint8_t *arena, const press_nn_layers *layers,
                                  const press_nn_weights *layer)
{
    const press_nn_planes *from = &layers->planes[layer->from];
    const press_nn_window *window = &layers->windows[layer->window];
    const uint32_t n_taps = (uint32_t)window->height * window->width, pitch = press_nn_pitch(from);
    const uint32_t channel_bits = channel_bits_of(layer);
    uint32_t k;

    rows->layer = layer;
    rows->window = window;
    rows->room = &layers->room;
    rows->codes = layer->data + (layer->outputs * channel_bits + 7) / 8;
    rows->values = NULL;
    if (layer->facts & PRESS_NN_HAS_VALUES) {
        rows->values = (const int8_t *)rows->codes;
        rows->codes += (uint32_t)layer->n_values * (layer->facts & PRESS_NN_OWN_VALUES ? layer->outputs : 1u);
    }
    rows->size = layer->size;
    rows->at = rows->bit = 0;
    rows->place_of = (uint32_t *)(void *)(arena + layers->room.places);
    rows->taps = (uint16_t *)(void *)(arena + layers->room.taps);
    rows->n_places = n_taps == 1 ? layer->group : n_taps;
    rows->next = n_taps == 1 ? layer->group * pitch : pitch;
    for (k = 0; k < rows->n_places; k++) {
        rows->place_of[k] = n_taps == 1 ? k * pitch
                                        : k / window->width * window->dilation_rows * press_nn_row(from) +
                                              k % window->width * window->dilation_columns;
    }
    return layer->facts & PRESS_NN_PACKED ? PRESS_NN_OK : read_tables(rows, arena);
}

/* The next 25 bits at least; PRESS_NN_BEHIND bytes can be read beyond the end of the codes. */
static inline uint32_t window_of(const uint8_t *codes, uint32_t at, uint32_t bit)
{
    return press_load32(codes + at) >> bit;
}

/* Of the next group of weights, which are not zero. */
static inline uint32_t next_mask(row_decoder *rows)
{
    const press_lookup *lookup = &rows->masks;
    uint32_t window, entry;
    unsigned length;

    if (lookup->code.used < 2) { /* one mask, whose codeword is empty */
        return (uint32_t)lookup->code.lowest + lookup->code.only;
    }
    window = window_of(rows->codes, rows->at, rows->bit);
    entry = lookup->single[window & (((uint32_t)1 << lookup->bits) - 1)];
    length = entry & 15;
    entry = length ? entry >> 4 : press_long_codeword(lookup, window, &length);
    rows->bit += length;
    rows->at += rows->bit >> 3;
    rows->bit &= 7;
    return (uint32_t)lookup->code.lowest + entry;
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
    const uint8_t *const codes = rows->codes;
    uint32_t at = rows->at, bit = rows->bit, signs = rows->group_start;

    for (; mask; mask &= mask - 1) {
        const uint32_t tap = lowest_bit(mask);
        const level_code *code = &rows->levels[signs >> 3 * tap & 7];
        const uint32_t entry = code->windows[window_of(codes, at, bit) & code->mask];
        const int value = code->values[values + (entry >> 4)];

        if (put_tap(out, plane + place[tap], code->lowest + (entry >> 4), value)) {
            return PRESS_NN_DAMAGED;
        }
        signs += value < 0 ? 0u - rows->spread[tap] : rows->spread[tap];
        bit += entry & 15;
        at += bit >> 3;
        bit &= 7;
    }
    rows->at = at;
    rows->bit = bit;
    return PRESS_NN_OK;
}

/* `values`: where those of this output channel begin. A group's codes are fewer than PRESS_NN_BEHIND bytes. */
static press_nn_status taps_of_masks(row_decoder *rows, uint32_t values, uint32_t n, tap_writer *out)
{
    const uint32_t *place = rows->place_of, *const last = place + rows->n_places;
    const uint32_t group = rows->layer->group;
    uint32_t plane = 0, at, mask;

    for (at = 0; at < n; at += group) {
        mask = rows->at < rows->size + 1 ? next_mask(rows) : 0;
        if (at + group > n && mask >> (n - at)) { /* the last group may be shorter; of the others the table tells */
            return PRESS_NN_DAMAGED;
        }
        if (mask && taps_of_group(rows, mask, place, plane, values, out)) {
            return PRESS_NN_DAMAGED;
        }
        place += group;
        if (place >= last) {
            place = rows->place_of;
            plane += rows->next;
        }
    }
    return rows->at + (rows->bit > 0) <= rows->size ? PRESS_NN_OK : PRESS_NN_DAMAGED;
}

static RARE press_nn_status taps_of_packed(row_decoder *rows, const int8_t *values, uint32_t channel, uint32_t n,
                                      tap_writer *out)
{
    const press_nn_weights *layer = rows->layer;
    uint32_t bit = channel * n * layer->bits, plane = 0, at, tap = 0;

    if (bit + n * layer->bits > 8 * rows->size) {
        return PRESS_NN_DAMAGED;
    }
    for (at = 0; at < n; at++, bit += layer->bits) {
        const uint8_t *bytes = rows->codes + (bit >> 3);
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
    const uint32_t n = (uint32_t)layer->inputs * rows->window->height * rows->window->width;
    const uint32_t values = layer->facts & PRESS_NN_OWN_VALUES ? channel * layer->n_values : 0;
    tap_writer out = start_taps(rows);
    press_nn_status status = layer->facts & PRESS_NN_PACKED
                                 ? taps_of_packed(rows, rows->values ? rows->values + values : NULL, channel, n, &out)
                                 : taps_of_masks(rows, values, n, &out);

#if PRESS_NN_BY_VALUE
    if (out.numbers) {
        order_by_value(&row->by_value, rows->taps, (uint8_t *)out.high, (uint32_t)(out.low - rows->taps),
                       rows->values + values, layer->n_values);
        return status;
    }
#endif
    end_taps(rows, &out, row);
    return status;
}

/* Huffman codes that were decoded to their end are used up. */
static press_nn_status end_rows(const row_decoder *rows)
{
    const int is_used_up = rows->layer->facts & PRESS_NN_PACKED || rows->at + (rows->bit > 0) == rows->size;

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

#if !FEW_PRODUCTS
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

#endif

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

#if PRESS_NN_WIDE && !PRESS_NN_HELIUM && !FEW_PRODUCTS
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

/* Sums of eight outputs, which lie `apart` in the input, or of one; they start with the bias. */
static void add_products(const uint8_t *x, const press_nn_weights *layer, uint32_t apart, uint32_t n_outputs,
                         const taps *row, int32_t bias, int32_t *sums)
{
    unsigned k;

    (void)layer; /* some builds have one way for all */
#if PRESS_NN_BY_VALUE
    if (goes_by_value(layer)) {
        add_by_value(x, &row->by_value, apart, bias, sums);
        return;
    }
#endif
#if FEW_PRODUCTS
    for (k = 0; k < n_outputs; k++, x += apart) {
        sums[k] = bias + add_one(x, row->positive, row->n_positive) - add_one(x, row->negative, row->n_negative);
    }
#else
    if (n_outputs == 1) {
        sums[0] = bias + add_one(x, row->positive, row->n_positive) - add_one(x, row->negative, row->n_negative);
        return;
    }
#if PRESS_NN_HELIUM
    if (apart == 1) {
        add_vectors(x, row, bias, sums);
        return;
    }
#elif PRESS_NN_WIDE && !FEW_PRODUCTS
    if (apart == 1 && layer->facts & PRESS_NN_FITS_WIDE) {
        add_wide(x, row, bias, sums);
        return;
    }
#endif
    for (k = 0; k < BLOCK; k++) {
        sums[k] = bias;
    }
    add_plain(x, apart, row, sums);
#endif
}

/* ---- Layers ---- */

/* Where outputs go. */
typedef struct target {
    const press_nn_planes *planes;
    const press_nn_planes *other; /* NULL: no sum */
    const press_nn_terms *sum;
    int other_first;
    press_nn_value *values; /* in place of planes: of a last layer */
} target;

#if PRESS_NN_WHOLE_BYTES
#define LOW(layer) 0
#define HIGH(layer) 255
#else
#define LOW(layer) ((layer)->low)
#define HIGH(layer) ((layer)->high)
#endif

/* Codes of n sums. Bytes may alias anything, so what does not change is copied first. */
static void put_codes(uint8_t *to, const press_nn_weights *layer, press_nn_factor scale, const int32_t *sums, uint32_t n)
{
    const int32_t zero = layer->zero, low = LOW(layer), high = HIGH(layer);
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
    const int32_t zero = layer->zero, low = LOW(layer), high = HIGH(layer);
    const int other_first = out->other_first;
    uint32_t k;

    for (k = 0; k < n; k++) {
        const uint8_t code = press_nn_code(sums[k], scale, zero, low, high);

        to[k] = other_first ? press_nn_sum_code(other[k], code, &sum) : press_nn_sum_code(code, other[k], &sum);
    }
}

static void conv_plane(uint8_t *arena, const press_nn_weights *layer, const press_nn_window *window,
                       const press_nn_planes *from, const target *out, const taps *row, uint32_t channel)
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
                        (window->pad_top * in_row + window->pad_left);
    const uint32_t block = goes_by_value(layer) && window->stride_columns == 1 ? MOST_BLOCK : BLOCK;
    int32_t sums[MOST_BLOCK];

    if (in_row == out_row && window->stride_rows == 1 && window->stride_columns == 1) {
        columns = (rows - 1) * out_row + columns; /* all rows as one; what falls between them is filled in later */
        rows = 1;
    }
    for (y = 0; y < rows; y++) {
        for (x = 0; x < columns; x += block) {
            uint32_t n = columns - x < block ? columns - x : block;

            add_products(in + x * window->stride_columns, layer, window->stride_columns, n, row, terms.bias, sums);
            if (other) {
                put_added_codes(at + x, other + x, out, layer, scale, sums, n);
            } else {
                put_codes(at + x, layer, scale, sums, n);
            }
        }
        in += window->stride_rows * in_row;
        at += out_row;
        other = other ? other + out_row : NULL;
    }
}

/* The only value of an output channel. */
static press_nn_value value_of(const uint8_t *x, const press_nn_weights *layer, const taps *row, uint32_t channel)
{
    const channel_terms terms = terms_of(layer, channel);
    int32_t sum;

    add_products(x, layer, 1, 1, row, terms.bias, &sum);
#if PRESS_NN_INTEGERS
    return press_nn_exact_value(sum, terms.scale);
#else
    return (float)sum * terms.scale;
#endif
}

static press_nn_status conv(uint8_t *arena, const press_nn_layers *layers, const press_nn_weights *layer,
                            const target *out)
{
    const press_nn_planes *from = &layers->planes[layer->from];
    row_decoder rows;
    taps row;
    press_nn_status status = start_rows(&rows, arena, layers, layer);
    uint32_t channel;

    for (channel = 0; status == PRESS_NN_OK && channel < layer->outputs; channel++) {
        status = decode_row(&rows, channel, &row);
        if (status == PRESS_NN_OK && out->values) {
            out->values[channel] = value_of(arena + from->place, layer, &row, channel);
        } else if (status == PRESS_NN_OK) {
            conv_plane(arena, layer, rows.window, from, out, &row, channel);
        }
    }
    if (!out->values) {
        press_nn_fill_pads(arena, out->planes);
    }
    return status ? status : end_rows(&rows);
}

press_nn_status press_nn_run_layers(uint8_t *arena, const press_nn_layers *layers, unsigned first, unsigned end,
                                    press_nn_value *values)
{
    press_nn_status status = PRESS_NN_OK;
    unsigned k;

    for (k = first; status == PRESS_NN_OK && k < end; k++) {
        const press_nn_weights *layer = &layers->weights[k];
        target out = {&layers->planes[layer->to], NULL, NULL, 0, values};
        press_nn_terms terms;

        if (layer->facts & PRESS_NN_HAS_SUM) {
            terms = press_nn_terms_of(&layers->sums[layer->sum]);
            out.other = &layers->planes[layer->other];
            out.sum = &terms;
            out.other_first = layer->facts & PRESS_NN_OTHER_FIRST;
        }
        status = conv(arena, layers, layer, &out);
    }
    return status;
}
