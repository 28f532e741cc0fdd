/* How sums become codes: float32 with the roundings of ONNX Runtime on x86 and ARM, or the same in integers only. */
#ifndef PRESS_NN_ARITHMETIC_H
#define PRESS_NN_ARITHMETIC_H

#include <string.h>

#include "press_nn.h"

/* A product and a sum must not become one operation where ONNX Runtime has two. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

static inline int32_t press_nn_within(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* A code of an operator with these bounds. */
static inline uint8_t press_nn_byte(int32_t value, int32_t low, int32_t high)
{
#if PRESS_NN_WHOLE_BYTES
    (void)low;
    (void)high;
    return (uint8_t)press_nn_within(value, 0, 255);
#else
    return (uint8_t)press_nn_within(value, low, high);
#endif
}

#if PRESS_NN_INTEGERS

#define PRESS_NN_VALUE_BITS 16 /* of an output behind its point */

/* press_nn_exact.c: the roundings of float32, where those below cannot tell. */
int32_t press_nn_exact_steps(int32_t sum, press_nn_scale scale);
int32_t press_nn_exact_value(int32_t sum, press_nn_scale scale);
int32_t press_nn_exact_product(int32_t product_of_codes, press_nn_scale scale, int32_t zero);
int32_t press_nn_exact_sum(uint8_t first, uint8_t second, const press_nn_sum *sum);

/* term * 2^shift, rounded. */
int32_t press_nn_fixed(press_nn_term term, int32_t shift);

/* A sum of values of codes, as floats add up; scale is above 0, and n below 2^24. */
typedef struct press_nn_mean {
    int32_t part, power;
} press_nn_mean;

press_nn_mean press_nn_mean_of_none(void);
void press_nn_mean_add(press_nn_mean *mean, int32_t code, press_nn_scale scale);
int32_t press_nn_mean_code(const press_nn_mean *mean, int32_t n, press_nn_scale scale, int32_t zero);

/*
 * A scale in units of 2^-32. A product whose fraction is within `near` of a half is computed again, exactly. Of outputs
 * below 512, floats are off by less than 2^-14, and the multiplier by a half in each of up to 512 / scale products.
 */
typedef struct press_nn_factor {
    int32_t multiplier;
    uint32_t near;
    press_nn_scale exact;
} press_nn_factor;

static inline press_nn_factor press_nn_factor_of(press_nn_scale scale)
{
    const int32_t shift = (int32_t)(scale >> 23) - 118, part = (int32_t)(scale & 0x7FFFFFu) + 0x800000;
    press_nn_factor found = {0, 0x80000000u, scale}; /* nothing but the exact way */

    if (shift >= -13 && shift <= 7) {
        found.multiplier = shift < 0 ? (part + (1 << (-shift - 1))) >> -shift : (int32_t)((uint32_t)part << shift);
        found.near = (1u << 18) + (shift < 0 ? 1u << (17 - shift) : 0);
    }
    return found;
}

static inline uint8_t press_nn_code(int32_t sum, press_nn_factor factor, int32_t zero, int32_t low, int32_t high)
{
    const int64_t total = (int64_t)sum * factor.multiplier + (((int64_t)zero << 32) + 0x80000000);
    int32_t code = (int32_t)(total >> 32);

    if ((uint32_t)total + factor.near <= 2 * factor.near - 1) {
        code = press_nn_exact_steps(sum, factor.exact) + zero;
    }
    return press_nn_byte(code, low, high);
}

/* The terms of a sum in units of 2^-shift; its fraction is looked at as that of a product is. */
typedef struct press_nn_terms {
    int32_t first, second, constant;
    uint32_t shift, near;
    press_nn_sum exact;
} press_nn_terms;

#define PRESS_NN_SUM_ERROR 512 /* units: half a unit of a term 255 times, twice, and floats to 2^-24 of 2^30 */

static inline press_nn_terms press_nn_terms_of(const press_nn_sum *sum)
{
    press_nn_terms terms;

    terms.first = press_nn_fixed(sum->first, sum->shift);
    terms.second = press_nn_fixed(sum->second, sum->shift);
    terms.constant = press_nn_fixed(sum->constant, sum->shift) + (1 << (sum->shift - 1));
    terms.shift = sum->shift;
    terms.near = (uint32_t)PRESS_NN_SUM_ERROR << (32 - sum->shift);
    terms.exact = *sum;
    return terms;
}

static inline uint8_t press_nn_sum_code(uint8_t first, uint8_t second, const press_nn_terms *terms)
{
    const int32_t total = first * terms->first + second * terms->second + terms->constant;
    int32_t code = total >> terms->shift;

    if (((uint32_t)total << (32 - terms->shift)) + terms->near <= 2 * terms->near - 1) {
        code = press_nn_exact_sum(first, second, &terms->exact);
    }
    return press_nn_byte(code, terms->exact.low, terms->exact.high);
}

#else

#include <float.h>

#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0
#error "float32 is computed in a wider type here: compile with -msse2 -mfpmath=sse, or generate integers only"
#endif

/*
 * To nearest, ties to even, plus `more`, from -2^22 to 2^22: what the mantissa has no room for is rounded away. Down to -1.5 * 2^23
 * and for all that is larger, a number that is as far off, or farther, in the same direction: bounds still hold.
 */
static inline int32_t press_nn_nearest(float value, int32_t more)
{
    union {
        float value;
        uint32_t bits;
    } moved;

    moved.value = value + 12582912.0f; /* 1.5 * 2^23 */
    return (int32_t)(moved.bits + ((uint32_t)more - 0x4B400000u));
}

static inline float press_nn_clamped(float value, float low, float high)
{
    value = value > low ? value : low;
    return value < high ? value : high;
}

typedef press_nn_scale press_nn_factor;
typedef press_nn_sum press_nn_terms;

static inline press_nn_factor press_nn_factor_of(press_nn_scale scale)
{
    return scale;
}

static inline press_nn_terms press_nn_terms_of(const press_nn_sum *sum)
{
    return *sum;
}

/* The generator has made sure that no sum times its scale is below -1.5 * 2^23. */
static inline uint8_t press_nn_code(int32_t sum, press_nn_factor scale, int32_t zero, int32_t low, int32_t high)
{
    return press_nn_byte(press_nn_nearest((float)sum * scale, zero), low, high);
}

/* code * ratio + addend, rounded once. */
static inline float press_nn_fused(uint8_t code, float ratio, float addend)
{
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__FP_FAST_FMAF)
    return __builtin_fmaf((float)code, ratio, addend);
#else
    /* The product is exact in double; a sum that is not is rounded to odd, so that the second rounding sees it. */
    double product = (double)code * (double)ratio, total = product + (double)addend;
    double added = total - product, lost = (product - (total - added)) + ((double)addend - added);
    uint64_t bits;

    memcpy(&bits, &total, sizeof bits);
    if ((lost > 0 || lost < 0) && (bits & 1) == 0) {
        bits = (lost > 0) == (total > 0) ? bits + 1 : bits - 1;
    }
    memcpy(&total, &bits, sizeof total);
    return (float)total;
#endif
}

static inline uint8_t press_nn_sum_code(uint8_t first, uint8_t second, const press_nn_terms *sum)
{
    float value = press_nn_fused(first, sum->first, press_nn_fused(second, sum->second, sum->constant));

    return press_nn_byte(press_nn_nearest(value, 0), sum->low, sum->high);
}

#endif

/* Elements from one row to the next, from one plane to the next. */
static inline uint32_t press_nn_row(const press_nn_planes *planes)
{
    return (uint32_t)planes->width + planes->pad_columns;
}

static inline uint32_t press_nn_pitch(const press_nn_planes *planes)
{
    return ((uint32_t)planes->height + planes->pad_rows) * press_nn_row(planes);
}

/* Put zeros between rows and planes, and in front of the first. */
void press_nn_fill_pads(uint8_t *arena, const press_nn_planes *planes);

#endif
