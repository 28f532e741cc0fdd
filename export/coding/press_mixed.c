/*
 * Mixed contexts: every level a few binary decisions, each under a probability that adaptive counters, mixed by a small
 * network, predict; FORMAT.md, "Mixed contexts". All arithmetic is on integers of at most 64 bits; `>>` of a negative
 * number rounds down, as in every compiler there is.
 *
 * Both directions run the same code, compiled twice: `decoding` is a constant in each. So is `linked`: whether contexts
 * are linked ones, of which press_linked.h has what is decided otherwise.
 */

#include "press_internal.h"

#if defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#else
#define ALWAYS_INLINE static inline
#define LIKELY(condition) (condition)
#endif

#if defined(__SSE2__) && !defined(PRESS_SMALL)
#include <emmintrin.h>
#define EIGHT_AT_ONCE /* numbers of 16 bits */
#endif

#define MAX_SLOTS 64 /* previous rows that predict the current one */
#define SLOW_LIMIT 1000
#define FAST_LIMIT 20
#define MOST_LINKED 4096 /* inputs that are linked, at most: their correlations take memory */
#define TAP_SETS 25
#define HALF_AND_HALF 32768u /* a probability */

/* First counter of each table. */
enum {
    ZERO_SPATIAL = 0,
    ZERO_SIGNS = ZERO_SPATIAL + 20 * 9,
    ZERO_ENERGY = ZERO_SIGNS + 625,
    ZERO_PREDICTIONS = ZERO_ENERGY + 400,
    SIGN_ENERGY = ZERO_PREDICTIONS + 400,
    SIGN_SPATIAL = SIGN_ENERGY + 320,
    SIGN_NEIGHBOURS = SIGN_SPATIAL + 32 * 9,
    SIGN_BALANCE = SIGN_NEIGHBOURS + 125,
    NODE = SIGN_BALANCE + 320,
    NODE_PAIR = 0,
    NODE_ENERGY = 25,
    NODE_SPATIAL = 793,
    NODE_PREDICTION = 825,
    NODE_PRIOR = 866,
    NODE_SIZE = 867,
    N_NODES = 128
};

/* First weight set of each selector. */
enum {
    ZERO_BY_POSITION = 0,
    ZERO_BY_PAIR = ZERO_BY_POSITION + 9,
    SIGN_BY_START = ZERO_BY_PAIR + 25,
    SIGN_BY_ENERGY = SIGN_BY_START + 2,
    NODE_BY_NODE = SIGN_BY_ENERGY + 10,
    NODE_BY_POSITION = NODE_BY_NODE + N_NODES
};

/* ---- State ---- */

/* A counter: slow in bits 32 to 53, fast in 10 to 31, visits in 0 to 9. */
#define FIRST_COUNTER ((uint64_t)1 << 53 | (uint64_t)1 << 31)

static void start_linked(press_mixing *mixing);

void press_mixing_start(press_mixing *mixing)
{
    uint64_t odds = (uint64_t)1 << 24;
    int set, k, t = 0;
    size_t context;

    for (context = 0; context < PRESS_CONTEXTS; context++) {
        mixing->counters[context] = FIRST_COUNTER;
    }
    for (set = 0; set < PRESS_WEIGHT_SETS; set++) {
        for (k = 0; k < PRESS_MIXED_INPUTS; k++) {
            mixing->weights[set][k] = set < NODE_BY_NODE ? 8750 : 7000;
        }
    }
    for (k = 0; k <= 2047; k++) {
        uint16_t above = (uint16_t)((odds << 16) / (odds + ((uint64_t)1 << 24)));

        mixing->squash[2047 - k] = (uint16_t)(65536u - above);
        mixing->squash[2047 + k] = above;
        odds = odds * 16842880 >> 24; /* times e^(1/256) */
    }
    for (k = 0; k < 4096; k++) {
        while (t < 4094 && mixing->squash[t] < 16 * k + 8) {
            t++;
        }
        mixing->stretch[k] = (int16_t)(t - 2047);
    }
    for (k = 0; k <= SLOW_LIMIT; k++) {
        mixing->rates[k] = (uint16_t)(655360 / (10 * k + 16));
    }
    start_linked(mixing);
}

/* The arithmetic coder. */
typedef struct coder {
    uint32_t low, high, code;
    size_t position; /* bytes read or written */
    size_t size;     /* of the stream, or of the memory for it */
    const uint8_t *in;
    uint8_t *out;
    press_mixing *mixing;
} coder;

/* What a stream knows of the levels so far. */
typedef struct work {
    int64_t correlations[MAX_SLOTS];
    int16_t factors_high[MAX_SLOTS], factors_low[MAX_SLOTS];
    int16_t tap_weights[TAP_SETS][8]; /* of linked contexts, as are links */
    size_t slots;        /* previous rows that count */
    size_t stride;       /* of history: slots, filled up with zeros */
    size_t link_slots;   /* previous inputs that count */
    size_t link_stride;
    uint64_t magnitudes, row_magnitudes, levels;
    uint64_t squares;
    uint32_t *columns;     /* magnitudes by input */
    uint32_t *taps;        /* magnitudes by input and tap */
    int32_t *predictions;  /* one for each tap of a kernel */
    int32_t *link_predictions;
    int64_t *links;        /* correlations [input][slot] */
    int16_t *residuals;    /* of the taps of this kernel */
    int16_t *history;      /* [input and tap][slot] */
    int16_t *recent;       /* of this row [tap][slot] */
} work;

static size_t slots_of(size_t n)
{
    return n < MAX_SLOTS ? n : MAX_SLOTS;
}

static size_t stride_of(size_t n)
{
    return slots_of(n) < 8 ? slots_of(n) : (slots_of(n) + 7) / 8 * 8;
}

static size_t link_stride_of(size_t rows, size_t inputs, int linked)
{
    return !linked || rows < 2 || inputs > MOST_LINKED ? 0 : stride_of(inputs);
}

static size_t aligned(size_t n_bytes)
{
    return (n_bytes + 7) / 8 * 8;
}

size_t press_mixed_work(size_t rows, size_t inputs, size_t taps, int linked)
{
    size_t links = link_stride_of(rows, inputs, linked);
    size_t numbers = inputs + inputs * taps + 2 * taps;
    size_t shorts = taps + inputs * taps * stride_of(rows) + taps * links;

    return aligned(sizeof(work)) + 8 * inputs * links + aligned(4 * numbers) + aligned(2 * shorts);
}

static work *start_work(void *memory, size_t rows, size_t inputs, size_t taps, int linked)
{
    work *w = (work *)memory;

    memset(memory, 0, press_mixed_work(rows, inputs, taps, linked));
    w->slots = rows < 1 ? 1 : slots_of(rows);
    w->stride = stride_of(rows);
    w->link_slots = inputs < 1 ? 1 : slots_of(inputs);
    w->link_stride = link_stride_of(rows, inputs, linked);
    w->links = (int64_t *)(void *)((uint8_t *)memory + aligned(sizeof(work)));
    w->columns = (uint32_t *)(void *)(w->links + inputs * w->link_stride);
    w->taps = w->columns + inputs;
    w->predictions = (int32_t *)(w->taps + inputs * taps);
    w->link_predictions = w->predictions + taps;
    w->history = (int16_t *)(void *)((uint8_t *)w->columns + aligned(4 * (inputs + inputs * taps + 2 * taps)));
    w->residuals = w->history + inputs * taps * w->stride;
    w->recent = w->residuals + taps;
    return w;
}

/* ---- Numbers ---- */

ALWAYS_INLINE uint64_t divide(uint64_t a, uint64_t b)
{
    /* divisions of 32 bits are much quicker */
    return LIKELY((a | b) >> 32 == 0) ? (uint32_t)a / (uint32_t)b : a / b;
}

ALWAYS_INLINE int clamp(int value, int least, int most)
{
    value = value < least ? least : value;
    return value > most ? most : value;
}

ALWAYS_INLINE int highest_bit(uint32_t value)
{
#if defined(__GNUC__)
    return (int)(8 * sizeof(unsigned)) - 1 - __builtin_clz(value);
#else
    int bit = 0;

    while (value >>= 1) {
        bit++;
    }
    return bit;
#endif
}

/* 16 log2(1 + x / 8), linear between powers of two. */
ALWAYS_INLINE int lg(uint64_t x)
{
    uint32_t y = (uint32_t)(x < 16383 ? x : 16383) + 8;
    int bit = highest_bit(y);

    return 16 * (bit - 4) + (int)((16 * y) >> bit);
}

ALWAYS_INLINE int magnitude(int level)
{
    return level < 0 ? -level : level;
}

ALWAYS_INLINE int magnitude_class(int level)
{
    int m = magnitude(level);

    return m < 3 ? m : 3 + (m > 4);
}

ALWAYS_INLINE int sign_class(int level)
{
    return 2 + (level > 0) + (level > 2) - (level < 0) - (level < -2);
}

ALWAYS_INLINE int log_class(int value, int shift_first, int shift, int n)
{
    int k = lg((uint64_t)(magnitude(value) >> shift_first)) >> shift;

    return k < n - 1 ? k : n - 1;
}

ALWAYS_INLINE int signed_class(int value, int shift_first, int shift, int n)
{
    int k = log_class(value, shift_first, shift, n);

    return value < 0 ? n - k : n + k;
}

/* ---- Decisions ---- */

/* One binary decision with a probability of a 1 in units of 2^-16. */
ALWAYS_INLINE int code_bit(coder *c, int bit, uint32_t probability, const int decoding)
{
    uint32_t middle = c->low + (uint32_t)((uint64_t)(c->high - c->low) * probability >> 16);

    if (decoding) {
        bit = c->code <= middle;
    }
    c->high = bit ? middle : c->high;
    c->low = bit ? c->low : middle + 1;

    while ((c->low ^ c->high) >> 24 == 0) {
        if (decoding) {
            c->code = c->code << 8 | (c->position < c->size ? c->in[c->position] : 0u);
        } else if (c->position < c->size) {
            c->out[c->position] = (uint8_t)(c->high >> 24);
        }
        c->position++;
        c->low <<= 8;
        c->high = c->high << 8 | 255u;
    }
    return bit;
}

ALWAYS_INLINE uint64_t updated(const press_mixing *mixing, uint64_t counter, int64_t target)
{
    int64_t slow = (int64_t)(counter >> 32), fast = (int64_t)(counter >> 10 & 0x3FFFFF);
    unsigned visits = (unsigned)(counter & 1023);

    slow += ((target - slow) * mixing->rates[visits]) >> 16;
    fast += ((target - fast) * mixing->rates[visits < FAST_LIMIT ? visits : FAST_LIMIT]) >> 16;
    visits += visits < SLOW_LIMIT;
    return (uint64_t)slow << 32 | (uint64_t)fast << 10 | visits;
}

/* A decision under n counters, mixed by two weight sets. */
ALWAYS_INLINE int code_mixed(coder *c, int bit, const uint32_t *contexts, const int n, uint32_t set_a, uint32_t set_b,
                             const int decoding)
{
    press_mixing *mixing = c->mixing;
    int64_t *a = mixing->weights[set_a], *b = mixing->weights[set_b];
    uint64_t counters[5];
    int inputs[PRESS_MIXED_INPUTS];
    int64_t dot_a, dot_b;
    int k, t_a, t_b, error_a, error_b;

    for (k = 0; k < n; k++) {
        counters[k] = mixing->counters[contexts[k]];
        inputs[2 * k] = mixing->stretch[counters[k] >> 42];
        inputs[2 * k + 1] = mixing->stretch[counters[k] >> 20 & 4095];
    }
    inputs[2 * n] = 256;

    dot_a = a[2 * n] * 256;
    dot_b = b[2 * n] * 256;
    for (k = 0; k < 2 * n; k++) {
        dot_a += a[k] * inputs[k];
        dot_b += b[k] * inputs[k];
    }
    dot_a >>= 16;
    dot_b >>= 16;
    t_a = (int)(dot_a < -2047 ? -2047 : dot_a > 2047 ? 2047 : dot_a);
    t_b = (int)(dot_b < -2047 ? -2047 : dot_b > 2047 ? 2047 : dot_b);

    bit = code_bit(c, bit, mixing->squash[2047 + ((t_a + t_b) >> 1)], decoding);

    error_a = (bit ? 65535 : 0) - mixing->squash[2047 + t_a];
    error_b = (bit ? 65535 : 0) - mixing->squash[2047 + t_b];
    for (k = 0; k < 2 * n + 1; k++) {
        a[k] += (inputs[k] * error_a + 32768) >> 16;
        b[k] += (inputs[k] * error_b + 32768) >> 16;
    }
    for (k = 0; k < n; k++) {
        mixing->counters[contexts[k]] = updated(mixing, counters[k], bit ? 4194303 : 0);
    }
    return bit;
}

/* What is known before a level. */
typedef struct around {
    int position; /* the tap, at most 8 */
    int left, above, above_left, above_right, balance;
    int spatial;    /* 1/64 level */
    int prediction; /* 1/64 level */
    int kernel_mean, tap_mean; /* their logarithms */
    int energy;
} around;

typedef struct node_contexts {
    uint32_t pair, energy, spatial, outward, means, position;
} node_contexts;

ALWAYS_INLINE int code_node(coder *c, int bit, uint32_t node, const node_contexts *at, const int decoding)
{
    const uint32_t first = NODE + node * NODE_SIZE;
    uint32_t contexts[5];

    contexts[0] = first + NODE_PAIR + at->pair;
    contexts[1] = first + NODE_ENERGY + at->energy;
    contexts[2] = first + NODE_SPATIAL + at->spatial;
    contexts[3] = first + NODE_PREDICTION + at->outward;
    contexts[4] = first + NODE_PRIOR;
    return code_mixed(c, bit, contexts, 5, NODE_BY_NODE + node, NODE_BY_POSITION + at->position, decoding);
}

/* A magnitude from 1 on: its exponent in unary, then the bits below its leading one. */
ALWAYS_INLINE int code_magnitude(coder *c, int m, int negative, const node_contexts *at, const int decoding)
{
    int exponent = 0, value = 1, j;

    while (exponent < 8 && code_node(c, m >> (exponent + 1) != 0, (uint32_t)(2 * exponent + negative), at, decoding)) {
        exponent++;
    }
    for (j = 0; j < exponent; j++) {
        int bit = m >> (exponent - 1 - j) & 1;

        if (j < 3) {
            uint32_t node = (uint32_t)(2 * (8 + 7 * (exponent - 1) + value - 1) + negative);

            bit = code_node(c, bit, node, at, decoding);
        } else {
            bit = code_bit(c, bit, HALF_AND_HALF, decoding);
        }
        value = 2 * value + bit;
    }
    return value;
}

ALWAYS_INLINE int pair_of(const around *known)
{
    return 5 * magnitude_class(known->left) + magnitude_class(known->above);
}

ALWAYS_INLINE int signs_of(const around *known)
{
    return 5 * sign_class(known->left) + sign_class(known->above);
}

ALWAYS_INLINE void zero_contexts(const around *known, uint32_t *contexts)
{
    const int total = known->spatial + known->prediction, energy = known->energy;
    const int corners = 5 * sign_class(known->above_left) + sign_class(known->above_right);

    contexts[0] = (uint32_t)(ZERO_SPATIAL + 9 * log_class(known->spatial, 2, 3, 20) + known->position);
    contexts[1] = (uint32_t)(ZERO_SIGNS + 25 * signs_of(known) + corners);
    contexts[2] = (uint32_t)(ZERO_ENERGY + 20 * log_class(total, 2, 2, 20) + (energy >> 3 < 19 ? energy >> 3 : 19));
    contexts[3] = (uint32_t)(ZERO_PREDICTIONS + 20 * signed_class(known->prediction, 1, 3, 10) +
                             signed_class(known->spatial, 2, 3, 10));
}

ALWAYS_INLINE void sign_contexts(const around *known, uint32_t *contexts)
{
    const int total = known->spatial + known->prediction, energy = known->energy;
    const int others = sign_class(known->balance - known->left - known->above);

    contexts[0] = (uint32_t)(SIGN_ENERGY + 8 * signed_class(total, 2, 2, 20) + (energy >> 4 < 7 ? energy >> 4 : 7));
    contexts[1] = (uint32_t)(SIGN_SPATIAL + 9 * signed_class(known->spatial, 2, 2, 16) + known->position);
    contexts[2] = (uint32_t)(SIGN_NEIGHBOURS + 5 * signs_of(known) + others);
    contexts[3] = (uint32_t)(SIGN_BALANCE + 20 * (signed_class(known->prediction, 1, 2, 16) >> 1) +
                             signed_class(4 * known->balance, 0, 3, 10));
}

ALWAYS_INLINE node_contexts magnitude_contexts(const around *known, int negative)
{
    const int total = known->spatial + known->prediction, energy = known->energy;
    const int outward = negative ? -total : total;
    node_contexts at;

    at.pair = (uint32_t)pair_of(known);
    at.energy = (uint32_t)(32 * signed_class(outward, 2, 3, 12) + (energy >> 2 < 31 ? energy >> 2 : 31));
    at.spatial = (uint32_t)signed_class(known->spatial, 2, 2, 16);
    at.outward = (uint32_t)(clamp(outward >> 5, -20, 20) + 20);
    at.means = (uint32_t)(12 * (known->kernel_mean >> 4) + (known->tap_mean >> 4));
    at.position = (uint32_t)known->position;
    return at;
}

ALWAYS_INLINE int code_level(coder *c, int level, const around *known, const int decoding)
{
    const int position = known->position, energy = known->energy;
    uint32_t contexts[4];
    node_contexts at;
    int negative, m;

    zero_contexts(known, contexts);
    if (!code_mixed(c, level != 0, contexts, 4, (uint32_t)(ZERO_BY_POSITION + position),
                    (uint32_t)(ZERO_BY_PAIR + pair_of(known)), decoding)) {
        return 0;
    }

    sign_contexts(known, contexts);
    negative = code_mixed(c, level < 0, contexts, 4, (uint32_t)(SIGN_BY_START + (position > 0)),
                          (uint32_t)(SIGN_BY_ENERGY + (energy >> 4 < 9 ? energy >> 4 : 9)), decoding);

    at = magnitude_contexts(known, negative);
    m = code_magnitude(c, magnitude(level), negative, &at, decoding);
    return negative ? -m : m;
}

#include "press_linked.h"

/* ---- Kernels ---- */

#ifdef EIGHT_AT_ONCE
/* Correlations >> shift, within -most .. most: numbers of 64 bits, below 2^62, become ones of 16. */
ALWAYS_INLINE void factors_of_eight(const int64_t *correlations, int shift, int most, int16_t *factors)
{
    const __m128i by = _mm_cvtsi32_si128(shift), limit = _mm_set1_epi16((int16_t)most);
    const __m128i offset = _mm_slli_epi64(_mm_cvtsi32_si128(1), 62), positive = _mm_unpacklo_epi64(offset, offset);
    const __m128i subtracted = _mm_srl_epi64(positive, by);
    __m128 shifted[4];
    __m128i low, high, fits, factor;
    int k;

    for (k = 0; k < 4; k++) {
        __m128i pair = _mm_loadu_si128((const __m128i *)(const void *)(correlations + 2 * k));

        pair = _mm_sub_epi64(_mm_srl_epi64(_mm_add_epi64(pair, positive), by), subtracted);
        shifted[k] = _mm_castsi128_ps(pair);
    }
    low = _mm_packs_epi32(_mm_castps_si128(_mm_shuffle_ps(shifted[0], shifted[1], 0x88)),
                          _mm_castps_si128(_mm_shuffle_ps(shifted[2], shifted[3], 0x88)));
    high = _mm_packs_epi32(_mm_castps_si128(_mm_shuffle_ps(shifted[0], shifted[1], 0xDD)),
                           _mm_castps_si128(_mm_shuffle_ps(shifted[2], shifted[3], 0xDD)));
    fits = _mm_cmpeq_epi16(high, _mm_srai_epi16(low, 15)); /* in 32 bits */
    factor = _mm_xor_si128(_mm_srai_epi16(high, 15), _mm_set1_epi16(32767));
    factor = _mm_or_si128(_mm_and_si128(fits, low), _mm_andnot_si128(fits, factor));
    factor = _mm_max_epi16(_mm_min_epi16(factor, limit), _mm_sub_epi16(_mm_setzero_si128(), limit));
    _mm_storeu_si128((__m128i *)(void *)factors, factor);
}
#endif

/*
 * Predict the residuals of one kernel from earlier ones, each counted with its correlation with what is known; `known`
 * says how much that is. Products and their sums fit 32 bits: a residual is below 2^14, in linked contexts at most 2^13.
 * A factor is one of 21 bits, taken in two halves, or in linked contexts one of 13.
 */
ALWAYS_INLINE void predict_kernel(work *w, const int64_t *correlations, const int16_t *history, size_t stride,
                                  size_t taps, uint64_t known, int32_t *predictions, const int linked)
{
    const int64_t most = linked ? 4095 : 1048576;
    uint64_t energy = 16 * w->squares / (w->levels + 1) * known / 16 + 1;
    const int bits = energy >> 32 ? 33 + highest_bit((uint32_t)(energy >> 32)) : 1 + highest_bit((uint32_t)energy);
    const int shift = bits > (linked ? 12 : 20) ? bits - (linked ? 12 : 20) : 0;
    size_t slot = 0, t;

    energy >>= shift;
#ifdef EIGHT_AT_ONCE
    for (; linked && slot + 8 <= stride; slot += 8) {
        factors_of_eight(correlations + slot, shift, (int)most, w->factors_high + slot);
    }
#endif
    for (; slot < stride; slot++) {
        int64_t factor = correlations[slot] >> shift;

        factor = factor < -most ? -most : factor > most ? most : factor;
        w->factors_high[slot] = (int16_t)(linked ? factor : factor >> 10);
        w->factors_low[slot] = (int16_t)(factor & 1023);
    }

    for (t = 0; t < taps; t++, history += stride) {
        const int64_t bound = 16384 * (int64_t)energy;
        int32_t high = 0, low = 0;
        int64_t total;

        for (slot = 0; slot < stride; slot++) {
            high += w->factors_high[slot] * history[slot];
        }
        for (slot = 0; !linked && slot < stride; slot++) {
            low += w->factors_low[slot] * history[slot];
        }
        total = 4 * (linked ? (int64_t)high : (int64_t)high * 1024 + low);
        total = total < -bound ? -bound : total > bound ? bound : total;
        predictions[t] = (int32_t)divide((uint64_t)(total + bound), energy) - 16384; /* rounds down */
    }
}

#ifdef EIGHT_AT_ONCE
/* Add the products of n residuals, at most sixteen, to the correlations of eight slots; factors are pairs of them. */
ALWAYS_INLINE void add_to_eight(int64_t *correlations, const int16_t *history, size_t stride, const int32_t *factors,
                                size_t n)
{
    __m128i low = _mm_setzero_si128(), high = low;
    __m128i *to = (__m128i *)(void *)correlations;
    size_t t;
    int k;

    for (t = 0; t < n; t += 2) {
        const int16_t *one = history + t * stride, *other = t + 1 < n ? one + stride : one;
        const __m128i pair = _mm_set1_epi32(factors[t / 2]);
        const __m128i a = _mm_loadu_si128((const __m128i *)(const void *)one);
        const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)other);

        low = _mm_add_epi32(low, _mm_madd_epi16(_mm_unpacklo_epi16(a, b), pair));
        high = _mm_add_epi32(high, _mm_madd_epi16(_mm_unpackhi_epi16(a, b), pair));
    }
    for (k = 0; k < 4; k++) {
        const __m128i sums = k < 2 ? low : high, signs = _mm_srai_epi32(sums, 31);
        const __m128i pair = k & 1 ? _mm_unpackhi_epi32(sums, signs) : _mm_unpacklo_epi32(sums, signs);

        _mm_storeu_si128(to + k, _mm_add_epi64(_mm_loadu_si128(to + k), pair));
    }
}
#endif

/* Take the residuals of a kernel into the correlations, and remember them. */
static void remember_kernel(const work *w, int64_t *correlations, int16_t *history, size_t stride, size_t taps,
                            size_t slot_now)
{
    size_t start, slot, t;

    for (start = 0; start < taps; start += 16) { /* sums of sixteen products fit 32 bits */
        const size_t n = start + 16 < taps ? 16 : taps - start;
        const int16_t *residuals = w->residuals + start, *before = history + start * stride;
        size_t first = 0;
        int32_t sums[MAX_SLOTS];
#ifdef EIGHT_AT_ONCE
        int32_t factors[8];

        for (t = 0; t < n; t += 2) {
            factors[t / 2] = (int32_t)((uint32_t)(t + 1 < n ? residuals[t + 1] : 0) << 16 | (uint16_t)residuals[t]);
        }
        for (; first + 8 <= stride; first += 8) {
            add_to_eight(correlations + first, before + first, stride, factors, n);
        }
#endif
        if (first < stride) {
            memset(sums, 0, sizeof sums[0] * stride);
        }
        for (t = 0; first < stride && t < n; t++) {
            for (slot = first; slot < stride; slot++) {
                sums[slot] += residuals[t] * before[t * stride + slot];
            }
        }
        for (slot = first; slot < stride; slot++) {
            correlations[slot] += sums[slot];
        }
    }
    for (t = 0; t < taps; t++) {
        history[t * stride + slot_now] = w->residuals[t];
    }
}

/* What rows, and in linked contexts inputs, say of a kernel. */
ALWAYS_INLINE void predict(work *w, size_t row, size_t input, size_t inputs, size_t taps, const int linked)
{
    const uint64_t first = input * taps, all = (uint64_t)inputs * taps;
    const size_t stride = w->link_stride;
    size_t t;

    predict_kernel(w, w->correlations, w->history + first * w->stride, w->stride, taps,
                   first + (linked ? all : 15 * all >> 5), w->predictions, linked);
    if (linked && stride && row) {
        predict_kernel(w, w->links + input * stride, w->recent, stride, taps, (uint64_t)(row + 18) * taps,
                       w->link_predictions, linked);
        for (t = 0; t < taps; t++) {
            w->predictions[t] += w->link_predictions[t];
        }
    }
}

ALWAYS_INLINE void remember(work *w, size_t row, size_t input, size_t taps, const int linked)
{
    const size_t stride = w->link_stride;
    size_t t;

    remember_kernel(w, w->correlations, w->history + input * taps * w->stride, w->stride, taps, row % w->slots);
    if (linked && stride) {
        remember_kernel(w, w->links + input * stride, w->recent, stride, taps, input % w->link_slots);
    }
    for (t = 0; t < taps; t++) {
        w->squares += (uint64_t)((int64_t)w->residuals[t] * w->residuals[t]);
    }
}

typedef struct layout {
    size_t inputs, taps, width;
    int lowest, highest;
} layout;

/* One kernel; whether its magnitudes are within bounds. */
ALWAYS_INLINE int code_kernel(coder *c, work *w, const layout *shape, int16_t *levels, size_t row, size_t input,
                              const int linked, const int decoding)
{
    const size_t taps = shape->taps, width = shape->width, first = input * taps;
    uint64_t mean, row_mean, column_mean, expected, magnitudes = 0;
    size_t p, x = 0;
    const int16_t none[8] = {0};
    latest_levels latest;
    around known;
    int left2 = 0;

    latest.levels = eight_of(none);
    latest.dot = latest.power = 0;
    predict(w, row, input, shape->inputs, taps, linked);
    mean = divide(64 * w->magnitudes + 1024, w->levels + 16);
    row_mean = divide(64 * w->row_magnitudes + 30 * mean, first + 30);
    column_mean = divide(64 * (uint64_t)w->columns[input] + 80 * mean, row * taps + 80);
    expected = divide(row_mean * column_mean, mean + 1);
    expected = expected < 65535 ? expected : 65535;

    known.left = known.balance = 0;
    for (p = 0; p < taps; p++) {
        const int upper = p >= width, inner = x > 0 && x + 1 < width;
        int above2 = p >= 2 * width ? levels[p - 2 * width] : 0, level, m;
        int16_t *weights = w->tap_weights[p < TAP_SETS ? p : TAP_SETS - 1];
        uint64_t tap_mean = divide(64 * (uint64_t)w->taps[first + p] + 16 * column_mean, row + 16);
        uint64_t kernel_mean = divide(64 * magnitudes + 8 * expected, p + 8);

        known.above = upper ? levels[p - width] : 0;
        known.above_left = upper && x > 0 ? levels[p - width - 1] : 0;
        known.above_right = upper && x + 1 < width ? levels[p - width + 1] : 0;
        known.spatial = (upper ? 28 : 31) * known.left - left2 - 9 * known.above_left + 4 * known.above_right +
                        (inner ? 22 : 27) * known.above - 4 * above2;
        if (linked && p) {
            count_levels(&latest, weights);
            known.spatial = clamp(known.spatial + (latest.dot >> 12), -16383, 16383);
        }
        known.prediction = w->predictions[p];
        known.kernel_mean = lg(kernel_mean);
        known.tap_mean = lg(tap_mean);
        known.energy = ((linked ? 12 : 10) * known.kernel_mean + (linked ? 8 : 6) * known.tap_mean) >> 4;
        known.position = p < 8 ? (int)p : 8;

        level = decoding ? 0 : levels[p];
        level = linked ? code_linked_level(c, level, &known, shape->lowest, shape->highest, decoding)
                       : code_level(c, level, &known, decoding);
        m = magnitude(level);
        if (!linked && m > (shape->highest > -shape->lowest ? shape->highest : -shape->lowest)) {
            return 0;
        }
        if (decoding) {
            levels[p] = (int16_t)level;
        }
        if (linked && p) {
            learn_tap(weights, &latest, 64 * level - known.spatial - known.prediction);
        }
        if (linked) {
            latest.levels = put_first(latest.levels, (int16_t)clamp(16 * level, -4095, 4095));
        }
        w->residuals[p] = (int16_t)(16 * level - (known.spatial >> 2));
        w->taps[first + p] += (uint32_t)m;
        magnitudes += (uint64_t)m;
        known.balance += level;
        x++;
        left2 = x < width ? known.left : 0;
        known.left = x < width ? level : 0;
        x = x < width ? x : 0;
    }

    remember(w, row, input, taps, linked);
    w->columns[input] += (uint32_t)magnitudes;
    w->row_magnitudes += magnitudes;
    w->magnitudes += magnitudes;
    w->levels += taps;
    return 1;
}

/* All kernels in file order; PRESS_BAD_MIXED: a magnitude or the position goes beyond what is allowed. */
ALWAYS_INLINE press_status code_rows(coder *c, work *w, const layout *shape, size_t rows, int16_t *levels,
                                     const int linked, const int decoding)
{
    size_t row, input;

    for (row = 0; row < rows; row++) {
        w->row_magnitudes = 0;
        memset(w->correlations, 0, sizeof w->correlations);
        memset(w->recent, 0, 2 * shape->taps * w->link_stride);
        for (input = 0; input < shape->inputs; input++) {
            if (!code_kernel(c, w, shape, levels, row, input, linked, decoding) ||
                c->position > c->size + (decoding ? 4 : 0)) {
                return decoding ? PRESS_BAD_MIXED : PRESS_SMALL_BUFFER;
            }
            levels += shape->taps;
        }
    }
    return PRESS_OK;
}

/* ---- Streams ---- */

/* The layout of levels of this shape; PRESS_BAD_ARGUMENT if there are more than a stream holds. */
static press_status lay_out(layout *shape, size_t rows, size_t inputs, size_t taps, size_t kernel_width, int lowest,
                           int highest)
{
    size_t row;

    if (kernel_width < 1 || rows > PRESS_MIXED_LEVELS || inputs > PRESS_MIXED_LEVELS || taps > PRESS_MIXED_LEVELS) {
        return PRESS_BAD_ARGUMENT;
    }
    shape->inputs = inputs;
    shape->taps = taps;
    shape->width = kernel_width < taps + 1 ? kernel_width : taps + 1;
    shape->lowest = clamp(lowest, -256, 0);
    shape->highest = clamp(highest, 0, 256);

    row = inputs && taps > PRESS_MIXED_LEVELS / inputs ? PRESS_MIXED_LEVELS + 1 : inputs * taps;
    return row && rows > PRESS_MIXED_LEVELS / row ? PRESS_BAD_ARGUMENT : PRESS_OK;
}

/* The shortest bytes that, with zeros after them, name a number in low .. high; returns how many. */
static size_t last_bytes(uint32_t low, uint32_t high, uint8_t *bytes)
{
    size_t n, k;

    for (n = 0; n <= 4; n++) {
        uint64_t step = (uint64_t)1 << (32 - 8 * n);
        uint64_t value = ((uint64_t)low + step - 1) / step * step;

        if (value <= high) {
            for (k = 0; k < n; k++) {
                bytes[k] = (uint8_t)(value >> (24 - 8 * k));
            }
            break;
        }
    }
    return n;
}

press_status press_mixed_decode(press_mixing *mixing, const uint8_t *stream, size_t size, size_t rows, size_t inputs,
                                size_t taps, size_t kernel_width, int lowest, int highest, int linked, void *memory,
                                int16_t *levels, size_t *end)
{
    coder c = {0, 0xFFFFFFFFu, 0, 4, 0, NULL, NULL, NULL};
    layout shape;
    uint8_t last[4];
    size_t n, k, held;
    press_status status = lay_out(&shape, rows, inputs, taps, kernel_width, lowest, highest);

    if (status) {
        return status;
    }
    c.in = stream;
    c.size = size;
    c.mixing = mixing;
    for (k = 0; k < 4; k++) {
        c.code = c.code << 8 | (k < size ? stream[k] : 0u);
    }
    start_own(mixing);
    if (taps) {
        work *w = start_work(memory, rows, inputs, taps, linked);

        status = linked ? code_rows(&c, w, &shape, rows, levels, 1, 1) : code_rows(&c, w, &shape, rows, levels, 0, 1);
    }
    if (status) {
        return status;
    }

    /* the stream is the only one of its levels: the decoder holds four bytes from here on */
    held = c.position - 4;
    if (end) {
        *end = held;
    }
    n = last_bytes(c.low, c.high, last);
    if (held + n != size) {
        return PRESS_MIXED_END;
    }
    for (k = 0; k < n; k++) {
        if (stream[held + k] != last[k]) {
            return PRESS_MIXED_END;
        }
    }
    return PRESS_OK;
}

#ifndef PRESS_NO_ENCODER
press_status press_mixed_encode(press_mixing *mixing, const int16_t *levels, size_t rows, size_t inputs, size_t taps,
                                size_t kernel_width, int lowest, int highest, int linked, void *memory, uint8_t *stream,
                                size_t capacity, size_t *size)
{
    coder c = {0, 0xFFFFFFFFu, 0, 0, 0, NULL, NULL, NULL};
    layout shape;
    uint8_t last[4];
    size_t n, k;
    press_status status = lay_out(&shape, rows, inputs, taps, kernel_width, lowest, highest);

    for (k = 0; status == PRESS_OK && k < rows * inputs * taps; k++) {
        status = levels[k] < shape.lowest || levels[k] > shape.highest ? PRESS_BAD_CODE : PRESS_OK;
    }
    if (status) {
        return status;
    }
    c.out = stream;
    c.size = capacity;
    c.mixing = mixing;
    start_own(mixing);
    if (taps) {
        work *w = start_work(memory, rows, inputs, taps, linked);
        int16_t *all = (int16_t *)(uintptr_t)levels; /* an encoder only reads them */

        status = linked ? code_rows(&c, w, &shape, rows, all, 1, 0) : code_rows(&c, w, &shape, rows, all, 0, 0);
    }
    n = last_bytes(c.low, c.high, last);
    if (status == PRESS_OK && (c.position > capacity || n > capacity - c.position)) {
        status = PRESS_SMALL_BUFFER;
    }
    if (status == PRESS_OK) {
        memcpy(stream + c.position, last, n);
        *size = c.position + n;
    }
    return status;
}
#endif
