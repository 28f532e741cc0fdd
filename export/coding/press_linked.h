/*
 * Linked contexts: what is decided otherwise than in mixed contexts; FORMAT.md, "Linked contexts". Part of press_mixed.c,
 * which has what both have in common. Numbers are of 16 bits where eight are multiplied at once: one instruction takes
 * them all where there is one.
 */
#ifndef PRESS_LINKED_H
#define PRESS_LINKED_H

#define STEP 2097152 /* of tap weights: times 1023, below 2^31 */

/* Counters behind those of mixed contexts: of one stream alone. */
enum {
    OWN_ZERO = PRESS_CONTEXTS,
    OWN_SIGN = OWN_ZERO + 9,
    OWN_NODE = OWN_SIGN + 243,
    OWN_PAIR = 0,
    OWN_MEANS = 25,
    OWN_PRIOR = 169,
    OWN_SIZE = 170
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
            mixing->linked_weights[set][k] = 3500;
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

/*
 * Made of single numbers in registers: eight numbers that are read together soon after each was written alone make
 * processors wait.
 */
#ifdef EIGHT_AT_ONCE
typedef __m128i eight;

ALWAYS_INLINE eight eight_of(const int16_t *x)
{
    return _mm_setr_epi16(x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]);
}

ALWAYS_INLINE eight read_eight(const int16_t *from)
{
    return _mm_loadu_si128((const __m128i *)(const void *)from);
}

/* The sums of four numbers, each. */
ALWAYS_INLINE void sums_of_four(__m128i a, __m128i b, int32_t *sum_a, int32_t *sum_b)
{
    __m128i sums = _mm_add_epi32(_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));

    sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4E));
    *sum_a = _mm_cvtsi128_si32(sums);
    *sum_b = _mm_cvtsi128_si32(_mm_shuffle_epi32(sums, 0x55));
}

/* The products of a and b with x. */
ALWAYS_INLINE void dots_of_eight(const int16_t *a, const int16_t *b, eight x, int32_t *dot_a, int32_t *dot_b)
{
    sums_of_four(_mm_madd_epi16(read_eight(a), x), _mm_madd_epi16(read_eight(b), x), dot_a, dot_b);
}

/* The products of weights and x with x. */
ALWAYS_INLINE void dots_with_itself(const int16_t *weights, eight x, int32_t *dot, int32_t *power)
{
    sums_of_four(_mm_madd_epi16(read_eight(weights), x), _mm_madd_epi16(x, x), dot, power);
}

/* x[1 .. 7] = x[0 .. 6], x[0] = first */
ALWAYS_INLINE eight put_first(eight x, int16_t first)
{
    return _mm_insert_epi16(_mm_slli_si128(x, 2), first, 0);
}
#else
typedef struct eight {
    int16_t of[8];
} eight;

ALWAYS_INLINE eight eight_of(const int16_t *x)
{
    eight made;

    memcpy(made.of, x, sizeof made.of);
    return made;
}

ALWAYS_INLINE void dots_of_eight(const int16_t *a, const int16_t *b, eight x, int32_t *dot_a, int32_t *dot_b)
{
    int32_t sum_a = 0, sum_b = 0;
    int k;

    for (k = 0; k < 8; k++) {
        sum_a += (int32_t)a[k] * x.of[k];
        sum_b += (int32_t)b[k] * x.of[k];
    }
    *dot_a = sum_a;
    *dot_b = sum_b;
}

ALWAYS_INLINE void dots_with_itself(const int16_t *weights, eight x, int32_t *dot, int32_t *power)
{
    dots_of_eight(weights, x.of, x, dot, power);
}

ALWAYS_INLINE eight put_first(eight x, int16_t first)
{
    memmove(x.of + 1, x.of, 7 * sizeof x.of[0]);
    x.of[0] = first;
    return x;
}
#endif

/* weights[k] += (factor * by[k] + half) >> shift, within 16 bits; shift is 12 or 16. */
ALWAYS_INLINE void move_eight(int16_t *weights, eight by, int factor, const int shift)
{
#ifdef EIGHT_AT_ONCE
    const __m128i factors = _mm_set1_epi16((int16_t)factor);
    const __m128i low = _mm_mullo_epi16(by, factors), high = _mm_mulhi_epi16(by, factors);
    __m128i steps;

    if (shift == 16) {
        steps = _mm_add_epi16(high, _mm_srli_epi16(low, 15));
    } else {
        const __m128i half = _mm_set1_epi32(1 << (shift - 1));

        steps = _mm_packs_epi32(_mm_srai_epi32(_mm_add_epi32(_mm_unpacklo_epi16(low, high), half), shift),
                                _mm_srai_epi32(_mm_add_epi32(_mm_unpackhi_epi16(low, high), half), shift));
    }
    _mm_storeu_si128((__m128i *)(void *)weights, _mm_adds_epi16(read_eight(weights), steps));
#else
    int k;

    for (k = 0; k < 8; k++) {
        weights[k] = (int16_t)clamp(weights[k] + ((factor * by.of[k] + (1 << (shift - 1))) >> shift), -32768, 32767);
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
    int16_t numbers[8] = {0};
    int32_t t_a, t_b;
    eight inputs;
    int k, error_a, error_b;

    for (k = 0; k < n; k++) {
        counters[k] = mixing->linked[contexts[k]];
        numbers[k] = mixing->stretch[counters[k] >> 20];
    }
    numbers[n] = 256;
    inputs = eight_of(numbers);
    dots_of_eight(a, b, inputs, &t_a, &t_b);
    t_a = clamp(t_a >> 14, -2047, 2047);
    t_b = clamp(t_b >> 14, -2047, 2047);

    bit = code_bit(c, bit, mixing->squash[2047 + ((t_a + t_b) >> 1)], decoding);

    error_a = ((bit ? 65535 : 0) - mixing->squash[2047 + t_a]) >> 1;
    error_b = ((bit ? 65535 : 0) - mixing->squash[2047 + t_b]) >> 1;
    move_eight(a, inputs, error_a, 16);
    move_eight(b, inputs, error_b, 16);
    for (k = 0; k < n; k++) {
        int32_t p = (int32_t)(counters[k] >> 10), target = bit ? 4194303 : 0;
        uint32_t visits = counters[k] & 1023;
        int32_t step = (int32_t)(((int64_t)(target - p) * mixing->rates[visits]) >> 16);

        mixing->linked[contexts[k]] = counters[k] + ((uint32_t)step << 10) + (visits < SLOW_LIMIT);
    }
    return bit;
}

ALWAYS_INLINE int code_linked_node(coder *c, int bit, uint32_t node, const node_contexts *at, const int decoding)
{
    const uint32_t first = NODE + node * NODE_SIZE, own = OWN_NODE + node * OWN_SIZE;
    uint32_t contexts[7];

    contexts[0] = first + NODE_PAIR + at->pair;
    contexts[1] = first + NODE_ENERGY + at->energy;
    contexts[2] = first + NODE_SPATIAL + at->spatial;
    contexts[3] = first + NODE_PREDICTION + at->outward;
    contexts[4] = own + OWN_PAIR + at->pair;
    contexts[5] = own + OWN_MEANS + at->means;
    contexts[6] = own + OWN_PRIOR;
    return code_linked(c, bit, contexts, 7, NODE_BY_NODE + node, NODE_BY_POSITION + at->position, decoding);
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
        contexts[4] = (uint32_t)(OWN_SIGN + 27 * (clamp(known->left, -4, 4) + 4) + 3 * (clamp(known->above, -4, 4) + 4) +
                                 clamp(known->above_left, -1, 1) + 1);
        negative = code_linked(c, level < 0, contexts, 5, (uint32_t)(SIGN_BY_START + (position > 0)),
                               (uint32_t)(SIGN_BY_ENERGY + (energy >> 4 < 9 ? energy >> 4 : 9)), decoding);
    }
    at = magnitude_contexts(known, negative);
    m = code_linked_magnitude(c, magnitude(level), negative, negative ? -lowest : highest, &at, decoding);
    return negative ? -m : m;
}

/* ---- Tap weights ---- */

/* What is known of a level from the latest eight before it in its kernel. */
typedef struct latest_levels {
    eight levels;        /* 1/16 level, the latest first */
    int32_t dot, power;  /* with the weights, and with themselves */
} latest_levels;

ALWAYS_INLINE void count_levels(latest_levels *latest, const int16_t *weights)
{
    dots_with_itself(weights, latest->levels, &latest->dot, &latest->power);
}

/* Move the weights of a tap against what was wrong with the prediction, 1/64 level. */
ALWAYS_INLINE void learn_tap(int16_t *weights, const latest_levels *latest, int error)
{
    const int32_t power = 4096 + latest->power;
    int32_t step = STEP * clamp(error >> 2, -1023, 1023);

    move_eight(weights, latest->levels, clamp(step / power - (step % power < 0), -32767, 32767), 12);
}

#endif
