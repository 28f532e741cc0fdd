/* What the files of the core share; see press.h for what they offer. */
#ifndef PRESS_INTERNAL_H
#define PRESS_INTERNAL_H

#include <string.h>

#include "press.h"

#define PRESS_MAX_BITS 15 /* of a codeword; FORMAT.md, "Code tables" */

/* Bits of the look-up of one symbol: longer codewords, which our writer does not use, take a slower way. */
#ifdef PRESS_SMALL
#define PRESS_SINGLE_BITS 8
#else
#define PRESS_SINGLE_BITS 12
#endif

/* Bits of the look-up of several symbols: the shorter table stays in the fastest cache beside everything else. */
#define PRESS_MANY_BITS_LEAST 11
#define PRESS_MANY_BITS_MOST 12

/* ---- Numbers in bytes ---- */

static inline uint16_t press_load16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static inline uint32_t press_load32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Compilers make one load of this where the machine is little-endian. */
static inline uint64_t press_load64(const uint8_t *at)
{
    return (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24 |
           (uint64_t)at[4] << 32 | (uint64_t)at[5] << 40 | (uint64_t)at[6] << 48 | (uint64_t)at[7] << 56;
}

static inline void press_store64(uint8_t *at, uint64_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)(value >> 16);
    at[3] = (uint8_t)(value >> 24);
    at[4] = (uint8_t)(value >> 32);
    at[5] = (uint8_t)(value >> 40);
    at[6] = (uint8_t)(value >> 48);
    at[7] = (uint8_t)(value >> 56);
}

/* The eight bytes from `at` on; those beyond the end are zero. */
static inline uint64_t press_load64_within(const uint8_t *data, size_t size, uint64_t at)
{
    uint64_t value = 0;
    unsigned k;

    for (k = 0; k < 8 && at + k < size; k++) {
        value |= (uint64_t)data[(size_t)at + k] << (8 * k);
    }
    return value;
}

/* ---- A blob, read from the front, with the ledger of its parts ---- */

typedef struct press_cursor {
    const uint8_t *data;
    size_t size;
    size_t at;
    press_parts parts;
} press_cursor;

/* The next bytes, or NULL if fewer are left. */
static inline const uint8_t *press_take(press_cursor *cursor, size_t n_bytes, size_t *part)
{
    const uint8_t *here = cursor->data + cursor->at;

    if (n_bytes > cursor->size - cursor->at) {
        return NULL;
    }
    cursor->at += n_bytes;
    *part += n_bytes;
    return here;
}

/* ---- A stream of bits ---- */

typedef struct press_stream {
    const uint8_t *data;
    size_t size;
    uint64_t position; /* bits */
} press_stream;

/* Go on to the next byte boundary. */
press_status press_align(press_stream *stream);

/* Take whole bytes from a byte boundary on, into *bytes. */
press_status press_take_bytes(press_stream *stream, size_t n_bytes, const uint8_t **bytes);

/* Take a varint from a byte boundary on. */
press_status press_take_varint(press_stream *stream, uint64_t *value);

/* The stream must be used up, padding zero. */
press_status press_finish(press_stream *stream);

/* ---- Code tables and runs ---- */

typedef struct press_lookup {
    press_code code;
    uint16_t counts[PRESS_MAX_BITS + 1]; /* codewords of each length */
    unsigned bits;                       /* of a window of `single` */
    unsigned long_first, long_index;     /* of longer codewords: the first one, and how many symbols come before */
    unsigned many_bits;                  /* of a window of `many`; 0: there is none */
    uint64_t *many;
    uint16_t *single;
    uint16_t *sorted; /* symbols by length, then number */
} press_lookup;

#define PRESS_SORTED_BYTES (2 * (size_t)PRESS_MAX_ALPHABET)
#define PRESS_SINGLE_BYTES ((size_t)2 << PRESS_SINGLE_BITS)
#ifdef PRESS_SMALL
#define PRESS_MANY_BYTES ((size_t)0)
#else
#define PRESS_MANY_BYTES ((size_t)8 << PRESS_MANY_BITS_MOST)
#endif

/* Look-ups of any code, without and with those of several symbols. */
#define PRESS_LOOKUP_BYTES (PRESS_SINGLE_BYTES + PRESS_SORTED_BYTES)

/* Check n lengths of 4 bits and fill in `code`; `lowest` is left alone. */
press_status press_check_lengths(const uint8_t *lengths, unsigned n, press_code *code);

/* Fill the look-ups of a code, at most PRESS_LOOKUP_BYTES + PRESS_MANY_BYTES (if many) at `memory`. */
void press_make_lookup(press_lookup *lookup, const press_code *code, void *memory, int many);

/* The symbol of a window that starts with a codeword longer than the look-up; *length: its bits. */
unsigned press_long_codeword(const press_lookup *lookup, uint64_t window, unsigned *length);

/* A run of symbols, counted from 0; wide: uint16_t, else a byte each. */
press_status press_take_run(press_stream *stream, const press_lookup *lookup, size_t count, int wide, void *symbols);

/* Symbols without lanes, as in version 1.0: the same whatever their number. */
press_status press_take_symbols(press_stream *stream, const press_lookup *lookup, size_t count, int wide,
                                void *symbols);

/* A run of levels. */
press_status press_take_levels(press_stream *stream, const press_lookup *lookup, size_t count, int16_t *levels);

/* ---- Grids ---- */

/* Read the grid; the magnitudes of values are checked as well. */
press_status press_take_grid(press_cursor *cursor, const press_tensor *tensor, press_grid *grid);

/* Lowest and highest code. */
void press_code_bounds(const press_grid *grid, int *low, int *high);

/* The code nearest to zero of a channel. */
int press_centre(const press_grid *grid, size_t channel);

/* Lowest and highest level of all channels. */
void press_level_bounds(const press_grid *grid, int *low, int *high);

/* What split values are put together from, and how far that has come. */
typedef struct press_split {
    unsigned type, kind;
    int least, most;        /* levels that the encoding of levels counts with */
    int lowest, highest;    /* levels that stand for an element */
    unsigned exponent;      /* of level 1 */
    unsigned mantissa_bits; /* of the type */
    unsigned sign_bit;
    unsigned raw_bits;      /* of each mantissa, stored */
    press_stream raw;
    const uint8_t *table;
} press_split;

/* Read the front of split values; `inner` becomes the tensor of their levels. */
press_status press_take_split(press_cursor *cursor, const press_tensor *tensor, press_tensor *inner,
                              press_split *split);

/* Put together the elements from `start` on, in order. */
press_status press_put_split(press_split *split, uint8_t *values, size_t start, size_t count, const int16_t *levels);

/* All stored bits must be used up. */
press_status press_finish_split(press_split *split);

/* Where levels go: codes and support (may be NULL), or values. */
typedef struct press_sink {
    const press_grid *grid;
    uint8_t *codes;
    uint8_t *support;
    uint8_t *values; /* not NULL: values, of the grid's type */
    press_split *split; /* not NULL: values are put together; of the grid its number of elements counts alone */
} press_sink;

/* Lowest and highest level that this tensor can have. */
static inline void press_sink_bounds(const press_sink *sink, int *low, int *high)
{
    if (sink->split) {
        *low = sink->split->least;
        *high = sink->split->most;
    } else {
        press_level_bounds(sink->grid, low, high);
    }
}

/*
 * Take the levels of the elements from `start` on. Where values are wanted, the levels may lie in the upper part of the
 * memory of their own values.
 */
press_status press_put_levels(const press_sink *sink, size_t start, size_t count, const int16_t *levels);

uint16_t press_half_from_float(float value);
float press_float_from_half(uint16_t half);

/* ---- Encodings ---- */

/* Whether levels are in mixed contexts, linked or not. */
static inline int press_of_contexts(unsigned encoding)
{
    return encoding == PRESS_MIXED || encoding == PRESS_LINKED;
}

press_status press_decode_old(press_cursor *cursor, const press_tensor *tensor, const press_sink *sink, void *scratch);
press_status press_decode_packed(press_cursor *cursor, const press_sink *sink, int16_t *levels);
press_status press_decode_slab(press_stream *stream, unsigned encoding, const uint8_t *parameters,
                               const press_lookup *lookups, size_t count, void *scratch, int16_t *levels);
#define PRESS_KERNEL_CONTEXTS 15 /* of kernels, at most: of the signs of rows */
#define PRESS_NO_CONTEXT 255

/* Kernels context by context, in order, less those without one; counts[PRESS_KERNEL_CONTEXTS] says how many have each. */
void press_sort_kernels(const uint8_t *contexts, size_t n, const size_t *counts, uint32_t *order);

/* Symbols of rows and of groups of magnitudes from the parameters; 0: they are not defined. */
int press_sign_row_symbols(const uint8_t *parameters, unsigned *rows, unsigned *groups);
press_status press_take_sign_rows(press_stream *stream, const uint8_t *parameters, const press_lookup *lookups,
                                  size_t count, void *scratch, int16_t *levels);
press_status press_decode_plain(press_cursor *cursor, const press_tensor *tensor, size_t count, void *scratch,
                                uint8_t *values);

/* Whether bools and numbers of few bits are in range, and unless any_bits, floats finite; the values may lie anywhere. */
press_status press_check_values(unsigned type, const uint8_t *values, size_t count, int any_bits);

#endif
