/*
 * Products of rows with few distinct weights: inputs that have the same weight are added up first, as 16-bit lanes of
 * whole words, and each sum is multiplied once. Part of press_nn_conv.c.
 */
#ifndef PRESS_NN_BY_VALUE_H
#define PRESS_NN_BY_VALUE_H

#include "press_internal.h"

#define LANES 16u          /* inputs side by side */
#define WORDS (LANES / 2u) /* of 32 bits that hold their sums: of each four words two of even ones, then two of odd ones */
#define MOST_OF_A_SUM 128u /* bytes: 16 bits hold it with a sign */
#define MOST_VALUES 32u    /* of a layer */
#define MOST_RUNS 40u      /* sums of a row: the generator makes sure */
#define SUMS_AT_ONCE 8u    /* that wait to be multiplied */

/* Places of the inputs of one output, in runs that share a weight. */
typedef struct value_row {
    const uint16_t *places;
    uint32_t n_runs;
    uint8_t lengths[MOST_RUNS];
    int8_t weights[MOST_RUNS];
} value_row;

/* Runs from how often each value occurs; `next`, `end`: where its places begin and end. Returns how many places. */
static uint32_t make_runs(value_row *row, uint16_t *next, uint16_t *end, const int8_t *values, uint32_t n_values)
{
    uint32_t number, at = 0, runs = 0;

    for (number = 0; number < n_values; number++) {
        uint32_t left = end[number];

        next[number] = (uint16_t)at;
        at += left;
        end[number] = (uint16_t)at;
        while (left && runs < MOST_RUNS) {
            const uint32_t length = left < MOST_OF_A_SUM ? left : MOST_OF_A_SUM;

            row->lengths[runs] = (uint8_t)length;
            row->weights[runs++] = values[number];
            left -= length;
        }
    }
    row->n_runs = runs;
    return at;
}

/* Sort n places by the number of their value, in place, and find the runs. */
static void order_by_value(value_row *row, uint16_t *places, uint8_t *numbers, uint32_t n, const int8_t *values,
                           uint32_t n_values)
{
    uint16_t next[MOST_VALUES], end[MOST_VALUES];
    uint32_t k, number;

    memset(end, 0, sizeof end);
    for (k = 0; k < n; k++) {
        end[numbers[k]]++;
    }
    make_runs(row, next, end, values, n_values);
    row->places = places;

    for (number = 0; number < n_values; number++) {
        for (k = next[number]; k < end[number]; k++) {
            uint32_t mine = numbers[k];
            uint16_t place = places[k];

            while (mine != number) { /* it changes places with what lies where it belongs */
                const uint32_t to = next[mine]++, other = numbers[to];
                const uint16_t moved = places[to];

                numbers[to] = (uint8_t)mine;
                places[to] = place;
                mine = other;
                place = moved;
            }
            places[k] = place;
        }
    }
}

/*
 * Macros, as GCC inlines no function into one with an attribute `optimize`: fourteen registers hold all of the loops on
 * ARM if the compiler neither moves loads forward nor adds pointers.
 */
#if defined(__GNUC__) && !defined(__clang__)
#define OF_FEW_REGISTERS __attribute__((noinline, optimize("no-schedule-insns", "no-ivopts")))
#else
#define OF_FEW_REGISTERS
#endif

#if PRESS_NN_DSP
typedef uint32_t lane_word;
#define LOAD(at) press_load32(at)
#define NEXT_PLACE(to, place) __asm__("ldrh %0, [%1], #2" : "=r"(to), "+r"(place) : "m"(*place))
#define FIRST_EVEN(sum, bytes) __asm__("uxtb16 %0, %1" : "=r"(sum) : "r"(bytes))
#define FIRST_ODD(sum, bytes) __asm__("uxtb16 %0, %1, ror #8" : "=r"(sum) : "r"(bytes))
#define ADD_EVEN(sum, bytes) __asm__("uxtab16 %0, %1, %2" : "=r"(sum) : "r"(sum), "r"(bytes))
#define ADD_ODD(sum, bytes) __asm__("uxtab16 %0, %1, %2, ror #8" : "=r"(sum) : "r"(sum), "r"(bytes))
#define LOW_HALF(sum, two, weight) __asm__("smlabb %0, %1, %2, %0" : "+r"(sum) : "r"(two), "r"(weight))
#define HIGH_HALF(sum, two, weight) __asm__("smlatb %0, %1, %2, %0" : "+r"(sum) : "r"(two), "r"(weight))
#else /* the judge of that; registers of 64 bits hold twice as many lanes */
#if PRESS_NN_LANES_64
typedef uint64_t lane_word;
#define LOAD(at) press_load64(at)
#define EVEN_BYTES 0x00FF00FF00FF00FFu
#else
typedef uint32_t lane_word;
#define LOAD(at) press_load32(at)
#define EVEN_BYTES 0x00FF00FFu
#endif
#define NEXT_PLACE(to, place) ((to) = *(place)++)
#define FIRST_EVEN(sum, bytes) ((sum) = (bytes) & EVEN_BYTES)
#define FIRST_ODD(sum, bytes) ((sum) = (bytes) >> 8 & EVEN_BYTES)
#define ADD_EVEN(sum, bytes) ((sum) += (bytes) & EVEN_BYTES)
#define ADD_ODD(sum, bytes) ((sum) += (bytes) >> 8 & EVEN_BYTES)
#define LOW_HALF(sum, two, weight) ((sum) += (int32_t)((two) & 0xFFFFu) * (weight))
#define HIGH_HALF(sum, two, weight) ((sum) += (int32_t)((two) >> 16) * (weight))
#endif

#define WITH(k, how)                                                                                                   \
    do {                                                                                                               \
        const lane_word bytes = LOAD(at + (k) * sizeof(lane_word));                                                    \
        how##_EVEN(even##k, bytes);                                                                                    \
        how##_ODD(odd##k, bytes);                                                                                      \
    } while (0)
#if PRESS_NN_LANES_64
#define WITH_ALL(how) WITH(0, how); WITH(1, how)
#else
#define WITH_ALL(how) WITH(0, how); WITH(1, how); WITH(2, how); WITH(3, how)
#endif

/* The sums of n runs from `place` on; returns where the next one begins. */
OF_FEW_REGISTERS
static const uint16_t *add_runs(const uint8_t *x, const uint16_t *place, const uint8_t *lengths, uint32_t n,
                                uint32_t *sums)
{
    const uint8_t *const last = lengths + n;

    for (; lengths != last; sums += WORDS) {
        const uint16_t *const end = place + *lengths++;
        const uint8_t *at;
        uint32_t next;
        lane_word even0, odd0, even1, odd1;
#if !PRESS_NN_LANES_64
        lane_word even2, odd2, even3, odd3;
#endif

        NEXT_PLACE(next, place);
        at = x + next;
        WITH_ALL(FIRST);
        while (place != end) {
            NEXT_PLACE(next, place);
            at = x + next;
            WITH_ALL(ADD);
        }
#if PRESS_NN_LANES_64
        sums[0] = (uint32_t)even0;
        sums[1] = (uint32_t)(even0 >> 32);
        sums[2] = (uint32_t)odd0;
        sums[3] = (uint32_t)(odd0 >> 32);
        sums[4] = (uint32_t)even1;
        sums[5] = (uint32_t)(even1 >> 32);
        sums[6] = (uint32_t)odd1;
        sums[7] = (uint32_t)(odd1 >> 32);
#else
        sums[0] = even0;
        sums[1] = even1;
        sums[2] = odd0;
        sums[3] = odd1;
        sums[4] = even2;
        sums[5] = even3;
        sums[6] = odd2;
        sums[7] = odd3;
#endif
    }
    return place;
}

/* Products of n sums, added to eight outputs. */
OF_FEW_REGISTERS
static void weigh(const uint32_t *lanes, const int8_t *weights, uint32_t n, int32_t *sums)
{
    const int8_t *const last = weights + n;
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3], s4 = sums[4], s5 = sums[5], s6 = sums[6],
            s7 = sums[7];

    for (; weights != last; lanes += WORDS) {
        const int32_t weight = *weights++;
        uint32_t two = lanes[0];

        LOW_HALF(s0, two, weight);
        HIGH_HALF(s2, two, weight);
        two = lanes[1];
        LOW_HALF(s4, two, weight);
        HIGH_HALF(s6, two, weight);
        two = lanes[2];
        LOW_HALF(s1, two, weight);
        HIGH_HALF(s3, two, weight);
        two = lanes[3];
        LOW_HALF(s5, two, weight);
        HIGH_HALF(s7, two, weight);
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
    sums[4] = s4;
    sums[5] = s5;
    sums[6] = s6;
    sums[7] = s7;
}

/* Sums of 16 outputs side by side, or of eight that lie two apart. */
static void add_by_value(const uint8_t *x, const value_row *row, uint32_t apart, int32_t bias, int32_t *sums)
{
    const uint16_t *place = row->places;
    uint32_t lanes[SUMS_AT_ONCE * WORDS];
    uint32_t run, k;

    for (k = 0; k < LANES; k++) {
        sums[k] = bias;
    }
    for (run = 0; run < row->n_runs; run += SUMS_AT_ONCE) {
        const uint32_t left = row->n_runs - run, n = left < SUMS_AT_ONCE ? left : SUMS_AT_ONCE;

        place = add_runs(x, place, row->lengths + run, n, lanes);
        weigh(lanes, row->weights + run, n, sums);
        weigh(lanes + WORDS / 2, row->weights + run, n, sums + LANES / 2);
    }
    for (k = 1; apart == 2 && k < LANES / 2; k++) {
        sums[k] = sums[2 * k];
    }
}

#endif
