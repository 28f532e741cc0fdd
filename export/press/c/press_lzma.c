/* An LZMA stream, as FORMAT.md says, "LZMA streams", decoded into the caller's buffers.

   What was written is the window: nothing else is kept but the probabilities. */

#include "press_parts.h"

enum {
    STATES = 12,
    FIRST_AFTER_MATCH = 7, /* states below come after a literal */
    PROBABILITY_BITS = 11,
    MOVE_BITS = 5,
    SHORTEST_MATCH = 2,
    FIRST_SLOT_WITH_EXTRA = 4,
    FIRST_SLOT_WITH_DIRECT = 14,
    ALIGN_BITS = 4
};

/* Where the probabilities of each kind of decision start. */
enum {
    IS_MATCH = 0,                         /* [state][position] */
    IS_REPEATED = IS_MATCH + STATES * 16, /* [state] */
    IS_LATER = IS_REPEATED + STATES,      /* [3][state]: not the latest distance, not the second, not the third */
    IS_LONG = IS_LATER + 3 * STATES,      /* [state][position]: of the latest distance, more than one byte */
    SLOTS = IS_LONG + STATES * 16,        /* [length][tree of 6 bits] */
    EXTRA = SLOTS + 4 * 64,               /* trees of the lower bits, slot after slot */
    ALIGN = EXTRA + 1 + 128 - FIRST_SLOT_WITH_DIRECT,
    LENGTHS = ALIGN + (1 << ALIGN_BITS),
    REPEATED_LENGTHS = LENGTHS + 2 + 2 * 16 * 8 + 256, /* two choices, short [position][8], middle, long */
    LITERALS = REPEATED_LENGTHS + 2 + 2 * 16 * 8 + 256,
    PER_LITERAL = 0x300
};

typedef struct {
    const uint8_t *in, *end;
    uint32_t range, code;
    uint16_t *probabilities;
    const uint8_t *before; /* what is known already, then what is written */
    size_t n_before;
    uint8_t *out;
    size_t written; /* both together */
    size_t n_out;   /* both together */
    int has_failed;
} decoder;

static void normalise(decoder *self)
{
    if (self->range < (uint32_t)1 << 24) {
        if (self->in == self->end) {
            self->has_failed = 1;
            return;
        }
        self->range <<= 8;
        self->code = self->code << 8 | *self->in++;
    }
}

static unsigned take_bit(decoder *self, unsigned which)
{
    uint16_t *probability = &self->probabilities[which];
    uint32_t bound;

    normalise(self);
    bound = (self->range >> PROBABILITY_BITS) * *probability;
    if (self->code < bound) {
        self->range = bound;
        *probability = (uint16_t)(*probability + ((((unsigned)1 << PROBABILITY_BITS) - *probability) >> MOVE_BITS));
        return 0;
    }
    self->range -= bound;
    self->code -= bound;
    *probability = (uint16_t)(*probability - (*probability >> MOVE_BITS));
    return 1;
}

static uint32_t take_direct(decoder *self, unsigned n)
{
    uint32_t value = 0;

    for (; n > 0; n--) {
        normalise(self);
        self->range >>= 1;
        value <<= 1;
        if (self->code >= self->range) {
            self->code -= self->range;
            value |= 1;
        }
    }
    return value;
}

/* A number of n bits, the highest first. */
static unsigned take_tree(decoder *self, unsigned tree, unsigned n)
{
    unsigned node = 1, k;

    for (k = 0; k < n; k++) {
        node = node << 1 | take_bit(self, tree + node);
    }
    return node - (1u << n);
}

/* The same, the lowest first. */
static unsigned take_tree_reversed(decoder *self, unsigned tree, unsigned n)
{
    unsigned node = 1, value = 0, k;

    for (k = 0; k < n; k++) {
        unsigned bit = take_bit(self, tree + node);

        node = node << 1 | bit;
        value |= bit << k;
    }
    return value;
}

static uint8_t byte_at(const decoder *self, size_t place)
{
    return place < self->n_before ? self->before[place] : self->out[place - self->n_before];
}

static void put(decoder *self, uint8_t byte)
{
    if (self->written >= self->n_before) {
        self->out[self->written - self->n_before] = byte;
    }
    self->written++;
}

static unsigned take_length(decoder *self, unsigned lengths, unsigned position)
{
    if (!take_bit(self, lengths)) {
        return take_tree(self, lengths + 2 + 8 * position, 3);
    }
    if (!take_bit(self, lengths + 1)) {
        return 8 + take_tree(self, lengths + 2 + 8 * 16 + 8 * position, 3);
    }
    return 16 + take_tree(self, lengths + 2 + 2 * 8 * 16, 8);
}

static uint32_t take_distance(decoder *self, unsigned length)
{
    const unsigned slot = take_tree(self, SLOTS + 64 * (length < 4 ? length : 3), 6);
    const unsigned n = slot / 2 - 1;
    uint32_t distance;

    if (slot < FIRST_SLOT_WITH_EXTRA) {
        return slot;
    }
    distance = (uint32_t)(2 | (slot & 1)) << n;
    if (slot < FIRST_SLOT_WITH_DIRECT) {
        return distance + take_tree_reversed(self, (unsigned)(EXTRA + distance - slot), n);
    }
    distance += take_direct(self, n - ALIGN_BITS) << ALIGN_BITS;
    return distance + take_tree_reversed(self, ALIGN, ALIGN_BITS);
}

static void take_literal(decoder *self, unsigned properties, unsigned state, uint32_t distance)
{
    const unsigned context_bits = properties % 9, position_bits = properties / 9 % 5;
    const unsigned previous = self->written ? byte_at(self, self->written - 1) : 0;
    const unsigned position = (unsigned)self->written & ((1u << position_bits) - 1);
    const unsigned tree = LITERALS + PER_LITERAL * ((position << context_bits) + (previous >> (8 - context_bits)));
    unsigned node = 1;

    if (state >= FIRST_AFTER_MATCH) {
        unsigned expected = byte_at(self, self->written - distance - 1);

        while (node < 256) {
            unsigned bit, match = expected >> 7 & 1;

            expected <<= 1;
            bit = take_bit(self, tree + ((1 + match) << 8) + node);
            node = node << 1 | bit;
            if (bit != match) {
                break;
            }
        }
    }
    while (node < 256) {
        node = node << 1 | take_bit(self, tree + node);
    }
    put(self, (uint8_t)node);
}

/* Which of the four latest distances is repeated; it comes to the front. Returns 0 for a single byte. */
static int take_repeated(decoder *self, unsigned state, unsigned position, uint32_t *distances)
{
    unsigned k = 0;
    uint32_t chosen;

    if (!take_bit(self, IS_LATER + state)) {
        return (int)take_bit(self, IS_LONG + 16 * state + position);
    }
    do {
        k++;
    } while (k < 3 && take_bit(self, IS_LATER + k * STATES + state));

    chosen = distances[k];
    for (; k > 0; k--) {
        distances[k] = distances[k - 1];
    }
    distances[0] = chosen;
    return 1;
}

/* Returns 1 once everything is written, 2 at the end mark; 0 for damage. */
static int take_all(decoder *self, unsigned properties, int to_the_mark)
{
    const unsigned position_mask = (1u << properties / 45) - 1;
    uint32_t distances[4] = {0, 0, 0, 0};
    unsigned state = 0;

    while (!self->has_failed && (to_the_mark || self->written < self->n_out)) {
        const unsigned position = (unsigned)self->written & position_mask;
        size_t length = 1;

        if (!take_bit(self, IS_MATCH + 16 * state + position)) {
            if (self->written == self->n_out) {
                return 0;
            }
            take_literal(self, properties, state, distances[0]);
            state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
            continue;
        }
        if (take_bit(self, IS_REPEATED + state)) {
            if (self->written == 0) {
                return 0;
            }
            if (take_repeated(self, state, position, distances)) {
                length = SHORTEST_MATCH + take_length(self, REPEATED_LENGTHS, position);
                state = state < FIRST_AFTER_MATCH ? 8 : 11;
            } else {
                state = state < FIRST_AFTER_MATCH ? 9 : 11;
            }
        } else {
            distances[3] = distances[2];
            distances[2] = distances[1];
            distances[1] = distances[0];
            length = take_length(self, LENGTHS, position);
            distances[0] = take_distance(self, (unsigned)length);
            length += SHORTEST_MATCH;
            state = state < FIRST_AFTER_MATCH ? 7 : 10;
            if (distances[0] == UINT32_MAX) {
                normalise(self);
                return self->has_failed ? 0 : 2;
            }
        }
        if (self->has_failed || distances[0] >= self->written || (to_the_mark && length > self->n_out - self->written)) {
            return 0;
        }
        for (; length > 0 && self->written < self->n_out; length--) {
            put(self, byte_at(self, self->written - distances[0] - 1));
        }
    }
    return !self->has_failed;
}

size_t press_lzma_probabilities(unsigned properties)
{
    return LITERALS + ((size_t)PER_LITERAL << (properties % 9 + properties / 9 % 5));
}

press_status press_unlzma(const uint8_t *in, size_t n_in, unsigned properties, uint16_t *probabilities,
                          const uint8_t *before, size_t n_before, uint8_t *out, size_t n_out, int is_whole)
{
    decoder self = {NULL, NULL, UINT32_MAX, 0, NULL, NULL, 0, NULL, 0, 0, 0};
    size_t k, n = press_lzma_probabilities(properties);

    if (n_in < 5 || in[0]) {
        return PRESS_BAD_LZMA;
    }
    for (k = 1; k < 5; k++) {
        self.code = self.code << 8 | in[k];
    }
    for (k = 0; k < n; k++) {
        probabilities[k] = 1 << (PROBABILITY_BITS - 1);
    }
    self.in = in + 5;
    self.end = in + n_in;
    self.probabilities = probabilities;
    self.before = before;
    self.n_before = n_before;
    self.out = out;
    self.n_out = n_before + n_out;

    k = (size_t)take_all(&self, properties, is_whole);
    if (!k || self.written != self.n_out || (is_whole && (k != 2 || self.code || self.in != self.end))) {
        return PRESS_BAD_LZMA;
    }
    return PRESS_OK;
}
