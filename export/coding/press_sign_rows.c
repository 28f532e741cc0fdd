/*
 * Sign rows: one symbol for the signs of a whole row of a kernel, then magnitudes, several in a symbol; FORMAT.md,
 * "Sign rows".
 */

#include "press_internal.h"

#define MAX_WIDTH 3
#define MAX_TAPS 81
#define MAX_GROUPED 8
#define MAGNITUDE_CONTEXTS 7

int press_sign_row_symbols(const uint8_t *parameters, unsigned *rows, unsigned *groups)
{
    const unsigned taps = parameters[0], width = parameters[1], grouped = parameters[4];
    unsigned k;

    if (width < 1 || width > MAX_WIDTH || width > taps || taps > MAX_TAPS || taps % width || !parameters[2] ||
        !parameters[3] || grouped < 1 || grouped > MAX_GROUPED) {
        return 0;
    }
    *rows = *groups = 1;
    for (k = 0; k < width; k++) {
        *rows *= 3;
    }
    for (k = 0; k < grouped && *groups <= PRESS_MAX_ALPHABET; k++) {
        *groups *= parameters[2];
    }
    return *groups <= PRESS_MAX_ALPHABET;
}

typedef struct rows {
    unsigned taps, width, largest, small, grouped, n_symbols;
    size_t n;      /* kernels */
    size_t count;  /* elements: the last kernel may be cut off */
    int16_t *levels;
    uint32_t *order;
    uint16_t *symbols;
    uint8_t *context;
} rows;

static int sign_of(int level)
{
    return (level > 0) - (level < 0);
}

/* The symbol that the signs of a row have, less that of a row of zeros. */
static int row_symbol(const rows *all, size_t kernel, unsigned row)
{
    const size_t first = kernel * all->taps + row * all->width;
    int symbol = 0;
    unsigned x;

    for (x = 0; x < all->width; x++) {
        symbol = 3 * symbol + (first + x < all->count ? sign_of(all->levels[first + x]) : 0);
    }
    return symbol;
}

/* Signs into the place of levels; they must not go beyond the end. */
static press_status put_signs(const rows *all, size_t kernel, unsigned row, unsigned symbol)
{
    const size_t first = kernel * all->taps + row * all->width;
    unsigned x = all->width;

    while (x-- > 0) {
        const int sign = (int)(symbol % 3) - 1;

        symbol /= 3;
        if (first + x < all->count) {
            all->levels[first + x] = (int16_t)sign;
        } else if (sign) {
            return PRESS_BAD_SIGN_ROWS;
        }
    }
    return PRESS_OK;
}

static press_status take_row(press_stream *stream, const rows *all, const press_lookup *lookups, unsigned row)
{
    const unsigned n_contexts = all->n_symbols / 2 + 2;
    size_t counts[PRESS_KERNEL_CONTEXTS] = {0}, first = 0, i, k;
    unsigned c;

    for (k = 0; k < all->n; k++) {
        int above = row ? row_symbol(all, k, row - 1) : (int)n_contexts - 1;

        all->context[k] = (uint8_t)(above < 0 ? -above : above);
        counts[all->context[k]]++;
    }
    press_sort_kernels(all->context, all->n, counts, all->order);
    for (c = 0; c < n_contexts; c++) {
        press_status status = press_take_run(stream, &lookups[c], counts[c], 1, all->symbols);

        for (i = 0; status == PRESS_OK && i < counts[c]; i++) {
            unsigned symbol = all->symbols[i] + (unsigned)lookups[c].code.lowest;

            k = all->order[first + i];
            if (row && row_symbol(all, k, row - 1) < 0) {
                symbol = all->n_symbols - 1 - symbol;
            }
            status = put_signs(all, k, row, symbol);
        }
        if (status) {
            return status;
        }
        first += counts[c];
    }
    return PRESS_OK;
}

/* -1: of the other sign, 0: zero, 1: small and of the same sign, 2: large. */
static int likeness(const rows *all, int neighbour, int sign)
{
    neighbour *= sign;
    return sign_of(neighbour) + (neighbour > (int)all->small);
}

static press_status take_tap(press_stream *stream, const rows *all, const press_lookup *lookups, unsigned tap)
{
    size_t counts[PRESS_KERNEL_CONTEXTS] = {0}, first = 0, i, k;
    unsigned c;

    for (k = 0; k < all->n; k++) {
        const size_t at = k * all->taps + tap;
        const int16_t *level = all->levels + at;
        int context = 2;

        all->context[k] = PRESS_NO_CONTEXT;
        if (at >= all->count || !*level) {
            continue;
        }
        context += tap % all->width ? likeness(all, level[-1], *level) : 0;
        context += tap >= all->width ? likeness(all, *(level - all->width), *level) : 0;
        all->context[k] = (uint8_t)context;
        counts[context]++;
    }
    press_sort_kernels(all->context, all->n, counts, all->order);
    for (c = 0; c < MAGNITUDE_CONTEXTS; c++) {
        const size_t n_symbols = (counts[c] + all->grouped - 1) / all->grouped;
        press_status status = press_take_run(stream, &lookups[c], n_symbols, 1, all->symbols);

        for (i = 0; status == PRESS_OK && i < n_symbols * all->grouped; i++) {
            unsigned magnitude, symbol = all->symbols[i / all->grouped];
            if (i % all->grouped == 0) {
                symbol += (unsigned)lookups[c].code.lowest;
            }
            magnitude = symbol % all->largest + 1;
            all->symbols[i / all->grouped] = (uint16_t)(symbol / all->largest);
            if (i < counts[c]) {
                int16_t *level = all->levels + (size_t)all->order[first + i] * all->taps + tap;

                *level = (int16_t)(*level * (int)magnitude);
            } else if (magnitude != 1) {
                status = PRESS_BAD_SIGN_ROWS;
            }
        }
        if (status) {
            return status;
        }
        first += counts[c];
    }
    return PRESS_OK;
}

/* Scratch: nine bytes for each kernel. */
press_status press_take_sign_rows(press_stream *stream, const uint8_t *parameters, const press_lookup *lookups,
                                  size_t count, void *scratch, int16_t *levels)
{
    press_status status = PRESS_OK;
    unsigned step, n_groups;
    rows all;

    (void)press_sign_row_symbols(parameters, &all.n_symbols, &n_groups);
    all.taps = parameters[0];
    all.width = parameters[1];
    all.largest = parameters[2];
    all.small = parameters[3];
    all.grouped = parameters[4];
    all.n = (count + all.taps - 1) / all.taps;
    all.count = count;
    all.levels = levels;
    all.order = (uint32_t *)scratch;
    all.symbols = (uint16_t *)(all.order + all.n);
    all.context = (uint8_t *)(all.symbols + all.n);

    memset(levels, 0, sizeof levels[0] * count);
    for (step = 0; status == PRESS_OK && step < all.taps / all.width; step++) {
        status = take_row(stream, &all, lookups, step);
    }
    for (step = 0; status == PRESS_OK && step < all.taps; step++) {
        status = take_tap(stream, &all, lookups + all.n_symbols / 2 + 2, step);
    }
    return status;
}
