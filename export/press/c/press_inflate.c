/* A zlib stream (RFC 1950, RFC 1951) inflated into the caller's buffer.

   What was written is the window: nothing else is kept. */

#include "press_parts.h"

enum {
    LONGEST_CODEWORD = 15,
    LITERALS = 288, /* the fixed code has two that mean nothing */
    LITERALS_USED = 286,
    DISTANCES = 30,
    END_OF_BLOCK = 256,
    LENGTH_CODES = 19,
    ADLER_MODULUS = 65521
};

typedef struct {
    const uint8_t *in;
    size_t n_in, at;
    uint32_t bits; /* read, not yet used: the lowest is the next */
    unsigned n_bits;

    uint8_t *out;
    size_t n_out, written;
    uint32_t adler_a, adler_b;
} inflater;

/* A canonical code: symbols ordered by codeword, and how many there are of each length. */
typedef struct {
    uint16_t count[LONGEST_CODEWORD + 1];
    uint16_t *symbols;
} code;

/* Up to 16 bits; -1 past the end. */
static int32_t take_bits(inflater *self, unsigned n)
{
    uint32_t value;

    while (self->n_bits < n) {
        if (self->at == self->n_in) {
            return -1;
        }
        self->bits |= (uint32_t)self->in[self->at++] << self->n_bits;
        self->n_bits += 8;
    }

    value = self->bits & ((1u << n) - 1);
    self->bits >>= n;
    self->n_bits -= n;
    return (int32_t)value;
}

static void put(inflater *self, uint8_t byte)
{
    self->out[self->written++] = byte;
    self->adler_a += byte;
    if (self->adler_a >= ADLER_MODULUS) {
        self->adler_a -= ADLER_MODULUS;
    }
    self->adler_b += self->adler_a;
    if (self->adler_b >= ADLER_MODULUS) {
        self->adler_b -= ADLER_MODULUS;
    }
}

static int copy(inflater *self, size_t distance, size_t n)
{
    if (distance > self->written || n > self->n_out - self->written) {
        return 0;
    }
    for (; n > 0; n--) {
        put(self, self->out[self->written - distance]);
    }
    return 1;
}

/* Fills `made`. Returns how many codewords are missing from a complete code; negative if there are too many. */
static int32_t make_code(code *made, const uint8_t *lengths, unsigned n)
{
    uint16_t next[LONGEST_CODEWORD + 1];
    int32_t missing = 1;
    unsigned k;

    memset(made->count, 0, sizeof made->count);
    for (k = 0; k < n; k++) {
        made->count[lengths[k]]++;
    }
    made->count[0] = 0;

    next[0] = 0;
    for (k = 1; k <= LONGEST_CODEWORD; k++) {
        next[k] = (uint16_t)(next[k - 1] + made->count[k - 1]);
        missing = 2 * missing - made->count[k];
        if (missing < 0) {
            return missing;
        }
    }

    for (k = 0; k < n; k++) {
        if (lengths[k] > 0) {
            made->symbols[next[lengths[k]]++] = (uint16_t)k;
        }
    }

    return missing;
}

/* The code may have one codeword of one bit; any other must be complete. Source: zlib accepts the same. */
static int usable(const code *made, int32_t missing)
{
    unsigned k;

    if (missing <= 0) {
        return missing == 0;
    }
    for (k = 2; k <= LONGEST_CODEWORD; k++) {
        if (made->count[k] > 0) {
            return 0;
        }
    }
    return 1;
}

static int32_t take_symbol(inflater *self, const code *from)
{
    int32_t codeword = 0, first = 0, index = 0;
    unsigned length;

    for (length = 1; length <= LONGEST_CODEWORD; length++) {
        int32_t bit = take_bits(self, 1), count = from->count[length];

        if (bit < 0) {
            return -1;
        }
        codeword |= bit;
        if (codeword - first < count) {
            return from->symbols[index + codeword - first];
        }
        index += count;
        first = (first + count) << 1;
        codeword <<= 1;
    }

    return -1;
}

/* Length and distance codes of RFC 1951, section 3.2.5, follow a rule: so many extra bits, from so far on. */
static int32_t with_extra_bits(inflater *self, unsigned symbol, unsigned per_step, int32_t lowest)
{
    unsigned extra = symbol < 2 * per_step ? 0 : symbol / per_step - 1;
    int32_t bits = take_bits(self, extra);
    int32_t start = extra == 0 ? (int32_t)symbol : (int32_t)((per_step + symbol % per_step) << extra);

    return bits < 0 ? -1 : lowest + start + bits;
}

static int take_codes(inflater *self, const code *literals, const code *distances)
{
    for (;;) {
        int32_t symbol = take_symbol(self, literals), length, distance;

        if (symbol < 0 || symbol >= LITERALS_USED) {
            return 0;
        }
        if (symbol == END_OF_BLOCK) {
            return 1;
        }
        if (symbol < END_OF_BLOCK) {
            if (self->written == self->n_out) {
                return 0;
            }
            put(self, (uint8_t)symbol);
            continue;
        }

        length = symbol == LITERALS_USED - 1 ? 258 : with_extra_bits(self, (unsigned)symbol - 257, 4, 3);
        if (length < 0) {
            return 0;
        }
        distance = take_symbol(self, distances);
        if (distance < 0 || distance >= DISTANCES) {
            return 0;
        }
        distance = with_extra_bits(self, (unsigned)distance, 2, 1);
        if (distance < 0 || !copy(self, (size_t)distance, (size_t)length)) {
            return 0;
        }
    }
}

static int take_stored(inflater *self)
{
    size_t n;

    self->bits = 0; /* fewer than eight bits are held: the rest of this byte */
    self->n_bits = 0;
    if (self->n_in - self->at < 4) {
        return 0;
    }
    n = (size_t)self->in[self->at] | (size_t)self->in[self->at + 1] << 8;
    if ((self->in[self->at + 2] | self->in[self->at + 3] << 8) != (int)(n ^ 0xffff)) {
        return 0;
    }
    self->at += 4;
    if (n > self->n_in - self->at || n > self->n_out - self->written) {
        return 0;
    }

    for (; n > 0; n--) {
        put(self, self->in[self->at++]);
    }
    return 1;
}

static int take_fixed(inflater *self, code *literals, code *distances, uint8_t *lengths)
{
    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 112);
    memset(lengths + 256, 7, 24);
    memset(lengths + 280, 8, 8);
    (void)make_code(literals, lengths, LITERALS);
    memset(lengths, 5, 32);
    (void)make_code(distances, lengths, 32);

    return take_codes(self, literals, distances);
}

/* Codeword lengths of literals and distances, under a code of their own: RFC 1951, section 3.2.7. */
static int take_lengths(inflater *self, const code *from, uint8_t *lengths, unsigned n)
{
    unsigned k = 0;

    while (k < n) {
        int32_t symbol = take_symbol(self, from), times;
        uint8_t length = 0;

        if (symbol < 0) {
            return 0;
        }
        if (symbol < 16) {
            lengths[k++] = (uint8_t)symbol;
            continue;
        }

        if (symbol == 16) {
            if (k == 0) {
                return 0;
            }
            length = lengths[k - 1];
            times = take_bits(self, 2);
        } else {
            times = take_bits(self, symbol == 17 ? 3 : 7);
        }
        if (times < 0) {
            return 0;
        }
        times += symbol == 18 ? 11 : 3;
        if ((unsigned)times > n - k) {
            return 0;
        }
        memset(lengths + k, length, (size_t)times);
        k += (unsigned)times;
    }

    return 1;
}

static int take_dynamic(inflater *self, code *literals, code *distances, uint8_t *lengths)
{
    static const uint8_t order[LENGTH_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    int32_t header = take_bits(self, 14);
    unsigned n_literals, n_distances, n_lengths, k;

    if (header < 0) {
        return 0;
    }
    n_literals = ((unsigned)header & 31) + 257;
    n_distances = ((unsigned)header >> 5 & 31) + 1;
    n_lengths = ((unsigned)header >> 10) + 4;
    if (n_literals > LITERALS_USED || n_distances > DISTANCES) {
        return 0;
    }

    memset(lengths, 0, LENGTH_CODES);
    for (k = 0; k < n_lengths; k++) {
        int32_t length = take_bits(self, 3);
        if (length < 0) {
            return 0;
        }
        lengths[order[k]] = (uint8_t)length;
    }
    if (make_code(literals, lengths, LENGTH_CODES) != 0) {
        return 0;
    }

    /* the symbols of this first code are used while `lengths` is filled again: they are kept elsewhere */
    if (!take_lengths(self, literals, lengths, n_literals + n_distances) || lengths[END_OF_BLOCK] == 0) {
        return 0;
    }
    if (!usable(literals, make_code(literals, lengths, n_literals))) {
        return 0;
    }
    if (!usable(distances, make_code(distances, lengths + n_literals, n_distances))) {
        return 0;
    }

    return take_codes(self, literals, distances);
}

static int take_blocks(inflater *self)
{
    uint16_t literal_symbols[LITERALS], distance_symbols[32];
    uint8_t lengths[LITERALS + 32];
    code literals, distances;
    int32_t is_last;

    literals.symbols = literal_symbols;
    distances.symbols = distance_symbols;
    do {
        int32_t kind;
        int good = 0;

        is_last = take_bits(self, 1);
        kind = take_bits(self, 2);
        if (is_last < 0) {
            return 0;
        }
        if (kind == 0) {
            good = take_stored(self);
        } else if (kind == 1) {
            good = take_fixed(self, &literals, &distances, lengths);
        } else if (kind == 2) {
            good = take_dynamic(self, &literals, &distances, lengths);
        }
        if (!good) {
            return 0;
        }
    } while (is_last == 0);

    return 1;
}

press_status press_inflate(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out)
{
    inflater self;
    uint32_t adler;

    if (n_in < 6 || (in[0] & 15) != 8 || in[0] >> 4 > 7 || ((unsigned)in[0] << 8 | in[1]) % 31 != 0 || in[1] & 32) {
        return PRESS_BAD_ZLIB;
    }

    memset(&self, 0, sizeof self);
    self.in = in;
    self.n_in = n_in;
    self.at = 2;
    self.out = out;
    self.n_out = n_out;
    self.adler_a = 1;
    if (!take_blocks(&self) || self.written != n_out || self.n_in - self.at != 4) {
        return PRESS_BAD_ZLIB;
    }

    adler = (uint32_t)in[self.at] << 24 | (uint32_t)in[self.at + 1] << 16 | (uint32_t)in[self.at + 2] << 8 |
            in[self.at + 3];
    return PRESS_CHECKS_SUMS && adler != (self.adler_b << 16 | self.adler_a) ? PRESS_BAD_ZLIB : PRESS_OK;
}
