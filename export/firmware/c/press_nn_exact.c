/*
 * What float32 arithmetic gives, computed in integers: ties, and what comes near to them, round as ONNX Runtime rounds
 * them. Part of builds without floating point; one code in some thousands needs it.
 */
#include "press_nn_arithmetic.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("Os")
#endif

#if PRESS_NN_INTEGERS

#define PART_BITS 24 /* of a float32 */
#define MOST_SHIFT 30 /* of a part of 32 bits, in 63 */

/* part * 2^power. */
typedef struct number {
    int64_t part;
    int32_t power;
} number;

static number whole(int32_t value)
{
    const number found = {value, 0};

    return found;
}

static number of_bits(uint32_t bits)
{
    const int32_t exponent = (int32_t)(bits >> 23 & 255), part = (int32_t)(bits & 0x7FFFFFu);
    number found;

    found.part = exponent ? part + 0x800000 : part;
    found.part = bits >> 31 ? -found.part : found.part;
    found.power = (exponent ? exponent : 1) - 150;
    return found;
}

/* part / 2^shift, ties to even; shift is 0 to 63. */
static int64_t halved(int64_t part, uint32_t shift)
{
    const uint64_t size = part < 0 ? 0 - (uint64_t)part : (uint64_t)part, whole_part = size >> shift;
    const uint64_t rest = size - (whole_part << shift), half = shift ? (uint64_t)1 << (shift - 1) : 1;
    const int64_t found = (int64_t)(whole_part + (rest > half || (rest == half && (whole_part & 1))));

    return part < 0 ? -found : found;
}

/* To the bits of a float32. */
static number rounded(number exact)
{
    const uint64_t size = exact.part < 0 ? 0 - (uint64_t)exact.part : (uint64_t)exact.part;
    uint32_t shift = 0;

    while (size >> shift >> PART_BITS) {
        shift++;
    }
    exact.part = halved(exact.part, shift);
    exact.power += (int32_t)shift;
    return exact;
}

/* Not rounded; of parts of 24 bits. */
static number product(number a, number b)
{
    a.part *= b.part;
    a.power += b.power;
    return a;
}

/* a + b, rounded once, of parts of 32 bits: where one is so small that it falls out, its last bit tells that it was. */
static number sum_of(number a, number b)
{
    const number small = a.power < b.power ? a : b;
    number large = a.power < b.power ? b : a;
    const int32_t apart = large.power - small.power, shift = apart < MOST_SHIFT ? apart : MOST_SHIFT;
    const int32_t lost = apart - shift < 62 ? apart - shift : 62;

    if (small.part == 0 || large.part == 0) {
        return rounded(small.part ? small : large);
    }
    large.part *= (int64_t)1 << shift;
    large.power -= shift;
    large.part += small.part >> lost | (int64_t)((small.part >> lost) * ((int64_t)1 << lost) != small.part);
    return rounded(large);
}

/* a / b, rounded once; of parts of 24 bits, b above 0. */
static number quotient(number a, number b)
{
    const int is_negative = a.part < 0;
    uint64_t size = is_negative ? 0 - (uint64_t)a.part : (uint64_t)a.part, found;

    while (size && size >> 61 == 0) {
        size <<= 1;
        a.power--;
    }
    found = size / (uint64_t)b.part;
    found |= found * (uint64_t)b.part != size;
    a.part = is_negative ? -(int64_t)found : (int64_t)found;
    a.power -= b.power;
    return rounded(a);
}

/* To nearest, ties to even; what is beyond 2^30 is 2^30. */
static int32_t nearest(number value)
{
    const int64_t most = (int64_t)1 << 30;
    int64_t found;

    if (value.power > 0) {
        found = value.power > 31 ? value.part * most : value.part * ((int64_t)1 << value.power);
    } else {
        found = value.power < -62 ? 0 : halved(value.part, (uint32_t)-value.power);
    }
    return (int32_t)(found > most ? most : found < -most ? -most : found);
}

static number scaled(int32_t sum, press_nn_scale scale)
{
    return rounded(product(rounded(whole(sum)), of_bits(scale)));
}

int32_t press_nn_exact_steps(int32_t sum, press_nn_scale scale)
{
    return nearest(scaled(sum, scale));
}

int32_t press_nn_exact_value(int32_t sum, press_nn_scale scale)
{
    number value = scaled(sum, scale);

    value.power += PRESS_NN_VALUE_BITS;
    return nearest(value);
}

int32_t press_nn_exact_product(int32_t product_of_codes, press_nn_scale scale, int32_t zero)
{
    return nearest(sum_of(scaled(product_of_codes, scale), whole(zero)));
}

int32_t press_nn_exact_sum(uint8_t first, uint8_t second, const press_nn_sum *sum)
{
    const number inner = sum_of(product(whole(second), of_bits(sum->second)), of_bits(sum->constant));

    return nearest(sum_of(product(whole(first), of_bits(sum->first)), inner));
}

int32_t press_nn_fixed(press_nn_term term, int32_t shift)
{
    number value = of_bits(term);

    value.power += shift;
    return nearest(value);
}

/* ---- Averages: a sum of floats, one by one ---- */

press_nn_mean press_nn_mean_of_none(void)
{
    const press_nn_mean mean = {0, 0};

    return mean;
}

void press_nn_mean_add(press_nn_mean *mean, int32_t code, press_nn_scale scale)
{
    number sum;

    sum.part = mean->part;
    sum.power = mean->power;
    sum = sum_of(sum, scaled(code, scale));
    mean->part = (int32_t)sum.part;
    mean->power = sum.power;
}

int32_t press_nn_mean_code(const press_nn_mean *mean, int32_t n, press_nn_scale scale, int32_t zero)
{
    number sum;

    sum.part = mean->part;
    sum.power = mean->power;
    sum = quotient(quotient(sum, whole(n)), of_bits(scale));
    return nearest(sum_of(sum, whole(zero)));
}

#endif
