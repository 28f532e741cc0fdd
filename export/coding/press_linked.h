/*
 * Linked contexts: what is decided otherwise than in mixed contexts; FORMAT.md, "Linked contexts". Part of press_mixed.c,
 * which has what both have in common. Numbers are of 16 bits where eight are multiplied at once: one instruction takes
 * them all where there is one.
 */
#ifndef PRESS_LINKED_H
#define PRESS_LINKED_H

#define LINKED_LIMIT 300 /* visits */
#define LINKED_BIAS 80
#define STEP 1343488 /* of tap weights: 2^26 / 50 */

/* Counters behind those of mixed contexts: of one stream alone. */
enum {
    OWN_ZERO = PRESS_CONTEXTS,
    OWN_NODE = OWN_ZERO + 9,
    OWN_PAIR = 0,
    OWN_PRIOR = 25,
    OWN_SIZE = 26
};

/* A counter: the probability in bits 10 to 31, visits in 0 to 9. */
#define FIRST_LINKED ((uint32_t)1 << 31)

static void start_linked(press_mixing *mixing)
{
    size_t context;
    int set, k;

    for (context = 0; context < PRESS_LINKED_CONTEXTS; context++) {
        mixing->linked[context] = FIRST_LINKED;
    }
    for (set = 0; set < PRESS_WEIGHT_SETS; set++) {
        for (k = 0; k < 8; k++) {
            mixing->linked_weights[set][k] = set < NODE_BY_NODE ? 4000 : 3250;
        }
    }
}

/* As a stream begins. */
static void start_own(press_mixing *mixing)
{
    size_t context;

    for (context = PRESS_CONTEXTS; context < PRESS_LINKED_CONTEXTS; context++) {
        mixing->linked[context] = FIRST_LINKED;
    }
}

/* ---- Eight numbers at once ---- */

#ifdef EIGHT_AT_ONCE
ALWAYS_INLINE __m128i eight(const int16_t *from)
{
    return _mm_loadu_si128((const __m128i *)(const void *)from);
}

ALWAYS_INLINE int32_t dot_of_eight(const int16_t *a, const int16_t *b)
{
    __m128i sums = _mm_madd_epi16(eight(a), eight(b));

    sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4E));
    sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xB1));
    return _mm_cvtsi128_si32(sums);
}
#else
ALWAYS_INLINE int32_t dot_of_eight(const int16_t *a, const int16_t *b)
{
    int32_t sum = 0;
    int k;

    for (k = 0; k < 8; k++) {
        sum += (int32_t)a[k] * b[k];
    }
    return sum;
}
#endif

/* weights[k] += (factor * by[k] + half) >> shift, within 16 bits; shift is 12 or 16. */
ALWAYS_INLINE void move_eight(int16_t *weights, const int16_t *by, int factor, const int shift)
{
#ifdef EIGHT_AT_ONCE
    const __m128i factors = _mm_set1_epi16((int16_t)factor), values = eight(by);
    const __m128i low = _mm_mullo_epi16(values, factors), high = _mm_mulhi_epi16(values, factors);
    __m128i steps;

    if (shift == 16) {
        steps = _mm_add_epi16(high, _mm_srli_epi16(low, 15));
    } else {
        const __m128i half = _mm_set1_epi32(1 << (shift - 1));

        steps = _mm_packs_epi32(_mm_srai_epi32(_mm_add_epi32(_mm_unpacklo_epi16(low, high), half), shift),
                                _mm_srai_epi32(_mm_add_epi32(_mm_unpackhi_epi16(low, high), half), shift));
    }
    _mm_storeu_si128((__m128i *)(void *)weights, _mm_adds_epi16(eight(weights), steps));
#else
    int k;

    for (k = 0; k < 8; k++) {
        weights[k] = (int16_t)clamp(weights[k] + ((factor * by[k] + (1 << (shift - 1))) >> shift), -32768, 32767);
    }
#endif
}

/* ---- Decisions ---- */

/* A decision under n counters, mixed by two weight sets. */
ALWAYS_INLINE int code_linked(coder *c, int bit, const uint32_t *contexts, const int n, uint32_t set_a, uint32_t set_b,
                              const int decoding)
{
    press_mixing *mixing = c->mixing;
    int16_t *a = mixing->linked_weights[set_a], *b = mixing->linked_weights[set_b];
    uint32_t counters[7];
    int16_t inputs[8] = {0};
    int k, t_a, t_b, error_a, error_b;

    for (k = 0; k < n; k++) {
        counters[k] = mixing->linked[contexts[k]];
        inputs[k] = mixing->stretch[counters[k] >> 20];
    }
    inputs[n] = LINKED_BIAS;
    t_a = clamp(dot_of_eight(a, inputs) >> 14, -2047, 2047);
    t_b = clamp(dot_of_eight(b, inputs) >> 14, -2047, 2047);

    bit = code_bit(c, bit, mixing->squash[2047 + ((t_a + t_b) >> 1)], decoding);

    error_a = ((bit ? 65535 : 0) - mixing->squash[2047 + t_a]) >> 1;
    error_b = ((bit ? 65535 : 0) - mixing->squash[2047 + t_b]) >> 1;
    move_eight(a, inputs, error_a, 16);
    move_eight(b, inputs, error_b, 16);
    for (k = 0; k < n; k++) {
        int32_t p = (int32_t)(counters[k] >> 10), target = bit ? 4194303 : 0;
        uint32_t visits = counters[k] & 1023;

        p += (int32_t)(((int64_t)(target - p) * mixing->rates[visits]) >> 16);
        mixing->linked[contexts[k]] = (uint32_t)p << 10 | (visits + (visits < LINKED_LIMIT));
    }
    return bit;
}

ALWAYS_INLINE int code_linked_node(coder *c, int bit, uint32_t node, const node_contexts *at, const int decoding)
{
    const uint32_t first = NODE + node * NODE_SIZE, own = OWN_NODE + node * OWN_SIZE;
    uint32_t contexts[6];

    contexts[0] = first + NODE_PAIR + at->pair;
    contexts[1] = first + NODE_ENERGY + at->energy;
    contexts[2] = first + NODE_SPATIAL + at->spatial;
    contexts[3] = first + NODE_PREDICTION + at->outward;
    contexts[4] = own + OWN_PAIR + at->pair;
    contexts[5] = own + OWN_PRIOR;
    return code_linked(c, bit, contexts, 6, NODE_BY_NODE + node, NODE_BY_POSITION + at->position, decoding);
}

/* A magnitude from 1 to `most`: what follows from that is not coded. */
ALWAYS_INLINE int code_linked_magnitude(coder *c, int m, int negative, int most, const node_contexts *at,
                                        const int decoding)
{
    int exponent = 0, value = 1, j;

    while (2 << exponent <= most &&
           code_linked_node(c, m >> (exponent + 1) != 0, (uint32_t)(2 * exponent + negative), at, decoding)) {
        exponent++;
    }
    for (j = 0; j < exponent; j++) {
        int bit = m >> (exponent - 1 - j) & 1;

        if ((2 * value + 1) << (exponent - 1 - j) > most) {
            bit = 0;
        } else if (j < 3) {
            uint32_t node = (uint32_t)(2 * (8 + 7 * (exponent - 1) + value - 1) + negative);

            bit = code_linked_node(c, bit, node, at, decoding);
        } else {
            bit = code_bit(c, bit, HALF_AND_HALF, decoding);
        }
        value = 2 * value + bit;
    }
    return value;
}

/* A level from `lowest` to `highest`. */
ALWAYS_INLINE int code_linked_level(coder *c, int level, const around *known, int lowest, int highest,
                                    const int decoding)
{
    const int energy = known->energy, position = known->position;
    uint32_t contexts[5];
    node_contexts at;
    int negative, m;

    if (lowest == highest) {
        return 0;
    }
    zero_contexts(known, contexts);
    contexts[4] = (uint32_t)(OWN_ZERO + position);
    if (!code_linked(c, level != 0, contexts, 5, (uint32_t)(ZERO_BY_POSITION + position),
                     (uint32_t)(ZERO_BY_PAIR + pair_of(known)), decoding)) {
        return 0;
    }

    negative = highest == 0;
    if (lowest && highest) {
        sign_contexts(known, contexts);
        negative = code_linked(c, level < 0, contexts, 4, (uint32_t)(SIGN_BY_START + (position > 0)),
                               (uint32_t)(SIGN_BY_ENERGY + (energy >> 4 < 9 ? energy >> 4 : 9)), decoding);
    }
    at = magnitude_contexts(known, negative);
    m = code_linked_magnitude(c, magnitude(level), negative, negative ? -lowest : highest, &at, decoding);
    return negative ? -m : m;
}

/* ---- Tap weights ---- */

/* The latest eight levels of a kernel before tap p, 1/16 level. */
ALWAYS_INLINE void latest_levels(const int16_t *levels, size_t p, int16_t *latest)
{
    size_t k;

    for (k = 0; k < 8; k++) {
        latest[k] = k < p ? (int16_t)clamp(16 * levels[-1 - (int)k], -4095, 4095) : 0;
    }
}

/* Move the weights of a tap against what was wrong with the prediction, 1/64 level. */
ALWAYS_INLINE void learn_tap(int16_t *weights, const int16_t *latest, int error)
{
    const int32_t power = 7680 + dot_of_eight(latest, latest);
    int32_t step = STEP * clamp(error >> 2, -1023, 1023);
    move_eight(weights, latest, clamp(step / power - (step % power < 0), -32767, 32767), 12);
}

#endif
