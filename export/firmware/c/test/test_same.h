/* Whether an output is the expected one. */
#ifndef TEST_SAME_H
#define TEST_SAME_H

#include <string.h>

#include "../model.h"
#include "vectors.h"

#if defined(TEST_SOFTMAX)
/* The exponential function rounds elsewhere: near is enough. */
static inline int test_same(press_nn_value value, size_t place)
{
    press_nn_value apart = value - test_values[place];

    return apart <= TEST_TOLERANCE && apart >= -TEST_TOLERANCE;
}
#elif PRESS_NN_INTEGERS
static inline int test_same(press_nn_value value, size_t place)
{
    return value == test_values[place];
}
#else
/* Bit for bit. */
static inline int test_same(press_nn_value value, size_t place)
{
    uint32_t bits, expected;

    memcpy(&bits, &value, sizeof bits);
    memcpy(&expected, &test_values[place], sizeof expected);
    return bits == expected;
}
#endif

#endif
