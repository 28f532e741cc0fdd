/* How sums become codes: float32 with the roundings of ONNX Runtime on x86 and ARM, or integers only. */
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

/* sum * multiplier / 2^shift, to nearest, halves up. */
static inline int32_t press_nn_scaled(int32_t sum, press_nn_scale scale)
{
    return (int32_t)(((int64_t)sum * scale.multiplier + ((int64_t)1 << (scale.shift - 1))) >> scale.shift);
}

static inline uint8_t press_nn_code(int32_t sum, press_nn_scale scale, int32_t zero, int32_t low, int32_t high)
{
    return press_nn_byte(press_nn_scaled(sum, scale) + zero, low, high);
}

static inline uint8_t press_nn_sum_code(uint8_t first, uint8_t second, const press_nn_sum *sum)
{
    int32_t total = first * sum->first + second * sum->second + sum->constant;

    return press_nn_byte(total >> sum->shift, sum->low, sum->high);
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

/* The generator has made sure that no sum times its scale is below -1.5 * 2^23. */
static inline uint8_t press_nn_code(int32_t sum, press_nn_scale scale, int32_t zero, int32_t low, int32_t high)
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

static inline uint8_t press_nn_sum_code(uint8_t first, uint8_t second, const press_nn_sum *sum)
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
