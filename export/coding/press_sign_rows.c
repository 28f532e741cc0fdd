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

#ifndef PRESS_NO_ENCODER

/* ---- Writing ---- */

/* Kernel k, filled up with zeros in `filled` if it is cut off. */
static const int16_t *kernel_at(const int16_t *levels, size_t count, size_t k, unsigned taps, int16_t *filled)
{
    size_t first = k * taps;

    if (first + taps <= count) {
        return levels + first;
    }
    memset(filled, 0, MAX_TAPS * sizeof filled[0]);
    memcpy(filled, levels + first, sizeof filled[0] * (count - first));
    return filled;
}

/* The signs of a row as one number, 0 for a row of zeros: with all signs turned it is the negative. */
static int signs_of(const int16_t *row, unsigned width)
{
    int symbol = 0;
    unsigned x;

    for (x = 0; x < width; x++) {
        symbol = 3 * symbol + sign_of(row[x]);
    }
    return symbol;
}

/* The context of a row of which the one above is given, -1 if there is none. */
static unsigned row_context(const int16_t *above, unsigned width, unsigned middle, int *turned)
{
    int symbol = above ? signs_of(above, width) : (int)middle + 1;

    *turned = symbol < 0;
    return (unsigned)(symbol < 0 ? -symbol : symbol);
}

static int likeness_of(int neighbour, int sign, int small)
{
    neighbour *= sign;
    return sign_of(neighbour) + (neighbour > small);
}

static unsigned magnitude_context(const int16_t *kernel, unsigned tap, unsigned column, unsigned width, int small)
{
    const int sign = sign_of(kernel[tap]);
    int context = 2;

    context += column ? likeness_of(kernel[tap - 1], sign, small) : 0;
    context += tap >= width ? likeness_of(kernel[tap - width], sign, small) : 0;
    return (unsigned)context;
}

static int magnitude_of(int level)
{
    return level < 0 ? -level : level;
}

/* Magnitudes that wait for others to make a symbol, of each tap and context. */
typedef struct waiting {
    uint32_t symbols[MAX_TAPS * MAGNITUDE_CONTEXTS];
    uint8_t n[MAX_TAPS * MAGNITUDE_CONTEXTS];
} waiting;

/* What a magnitude counts for, of those that make a symbol. */
static void find_powers(const uint8_t *parameters, uint32_t *powers)
{
    unsigned k;

    powers[0] = 1;
    for (k = 1; k < MAX_GROUPED; k++) {
        powers[k] = k < parameters[4] ? powers[k - 1] * parameters[2] : 0;
    }
}

static void count_magnitudes(const int16_t *kernel, const uint8_t *parameters, const uint8_t *columns,
                             const uint32_t *powers, unsigned n_groups, waiting *waits, uint64_t *groups)
{
    const unsigned taps = parameters[0], width = parameters[1], grouped = parameters[4];
    unsigned found[MAX_TAPS], n = 0, tap, i;

    /* without a branch, here and below: which levels are zero, and which symbols are full, is a coin toss */
    for (tap = 0; tap < taps; tap++) {
        found[n] = tap;
        n += kernel[tap] != 0;
    }
    for (i = 0; i < n; i++) {
        unsigned context, at, full;
        uint32_t symbol;

        tap = found[i];
        context = magnitude_context(kernel, tap, columns[tap], width, parameters[3]);
        at = tap * MAGNITUDE_CONTEXTS + context;
        symbol = waits->symbols[at] + powers[waits->n[at]] * (uint32_t)(magnitude_of(kernel[tap]) - 1);
        full = waits->n[at] + 1u == grouped;
        groups[context * n_groups + (full ? symbol : 0)] += full;
        waits->symbols[at] = full ? 0 : symbol;
        waits->n[at] = (uint8_t)(full ? 0 : waits->n[at] + 1);
    }
}

press_status press_count_sign_rows(const int16_t *levels, size_t count, const uint8_t *parameters, uint64_t *signs,
                                   uint64_t *groups)
{
    const unsigned taps = parameters[0], width = parameters[1];
    unsigned n_rows, n_groups, middle, tap, c;
    uint8_t columns[MAX_TAPS];
    int16_t filled[MAX_TAPS];
    size_t n, k;
    uint32_t powers[MAX_GROUPED];
    waiting waits;

    if (!press_sign_row_symbols(parameters, &n_rows, &n_groups)) {
        return PRESS_BAD_ARGUMENT;
    }
    middle = n_rows / 2;
    n = (count + taps - 1) / taps;
    for (tap = 0; tap < taps; tap++) {
        columns[tap] = (uint8_t)(tap % width);
    }
    memset(&waits, 0, sizeof waits);
    find_powers(parameters, powers);

    for (k = 0; k < n; k++) {
        const int16_t *kernel = kernel_at(levels, count, k, taps, filled);

        for (tap = 0; tap < taps; tap += width) {
            int turned, symbol = signs_of(kernel + tap, width);
            unsigned context = row_context(tap ? kernel + tap - width : NULL, width, middle, &turned);

            signs[context * n_rows + (unsigned)((turned ? -symbol : symbol) + (int)middle)]++;
        }
        count_magnitudes(kernel, parameters, columns, powers, n_groups, &waits, groups);
    }
    for (c = 0; c < taps * MAGNITUDE_CONTEXTS; c++) {
        groups[c % MAGNITUDE_CONTEXTS * n_groups + waits.symbols[c]] += waits.n[c] > 0;
    }
    return PRESS_OK;
}

/* Numbers context by context, in order, each a run; `contexts` says which, PRESS_NO_CONTEXT: none. */
typedef struct sorter {
    uint8_t *contexts;
    int16_t *numbers;
    size_t ends[PRESS_KERNEL_CONTEXTS + 1]; /* [c + 1]: numbers of context c, then their end in `numbers` */
} sorter;

static void start_sorting(sorter *sorted)
{
    memset(sorted->ends, 0, sizeof sorted->ends);
}

static void find_starts(sorter *sorted)
{
    unsigned c;

    for (c = 0; c < PRESS_KERNEL_CONTEXTS; c++) {
        sorted->ends[c + 1] += sorted->ends[c];
    }
}

/* Signs of one row of every kernel. */
static press_status put_row(press_writer *writer, const uint8_t *parameters, const press_codewords *codes,
                            unsigned row, const int16_t *levels, size_t count, sorter *sorted)
{
    const unsigned taps = parameters[0], width = parameters[1];
    const size_t n = (count + taps - 1) / taps;
    press_status status = PRESS_OK;
    unsigned n_rows, n_groups, middle, c;
    int16_t filled[MAX_TAPS];
    int turned;
    size_t k;

    (void)press_sign_row_symbols(parameters, &n_rows, &n_groups);
    middle = n_rows / 2;
    start_sorting(sorted);
    for (k = 0; k < n; k++) {
        const int16_t *kernel = kernel_at(levels, count, k, taps, filled) + row * width;

        c = row_context(row ? kernel - width : NULL, width, middle, &turned);
        sorted->contexts[k] = (uint8_t)(2 * c + (unsigned)turned);
        sorted->ends[c + 1]++;
    }
    find_starts(sorted);
    for (k = 0; k < n; k++) {
        const int16_t *kernel = kernel_at(levels, count, k, taps, filled) + row * width;
        const int symbol = signs_of(kernel, width);

        c = sorted->contexts[k] / 2u;
        sorted->numbers[sorted->ends[c]++] = (int16_t)((sorted->contexts[k] & 1 ? -symbol : symbol) + (int)middle);
    }
    for (c = 0; status == PRESS_OK && c < middle + 2; c++) {
        const size_t first = c ? sorted->ends[c - 1] : 0;

        status = press_write_run(writer, &codes[c], sorted->numbers + first, sorted->ends[c] - first);
    }
    return status;
}

/* Magnitudes into symbols, in their own place; how many there are. */
static size_t join_magnitudes(const uint8_t *parameters, const uint32_t *powers, int16_t *numbers, size_t n)
{
    const size_t grouped = parameters[4], n_symbols = (n + grouped - 1) / grouped;
    size_t i, j;

    for (i = 0; i < n_symbols; i++) {
        uint32_t symbol = 0;

        for (j = 0; j < grouped && i * grouped + j < n; j++) {
            symbol += powers[j] * (uint32_t)(numbers[i * grouped + j] - 1);
        }
        numbers[i] = (int16_t)symbol;
    }
    return n_symbols;
}

/* Magnitudes at one tap of every kernel. */
static press_status put_tap(press_writer *writer, const uint8_t *parameters, const press_codewords *codes,
                            const uint32_t *powers, unsigned tap, const int16_t *levels, size_t count, sorter *sorted)
{
    const unsigned taps = parameters[0], width = parameters[1], column = tap % width;
    const size_t n = count / taps + (count % taps > tap);
    press_status status = PRESS_OK;
    size_t k;
    unsigned c;

    start_sorting(sorted);
    for (k = 0; k < n; k++) {
        const int16_t *kernel = levels + k * taps;

        sorted->contexts[k] = PRESS_NO_CONTEXT;
        if (kernel[tap]) {
            c = magnitude_context(kernel, tap, column, width, parameters[3]);
            sorted->contexts[k] = (uint8_t)c;
            sorted->ends[c + 1]++;
        }
    }
    find_starts(sorted);
    for (k = 0; k < n; k++) {
        if (sorted->contexts[k] != PRESS_NO_CONTEXT) {
            sorted->numbers[sorted->ends[sorted->contexts[k]]++] = (int16_t)magnitude_of(levels[k * taps + tap]);
        }
    }
    for (c = 0; status == PRESS_OK && c < MAGNITUDE_CONTEXTS; c++) {
        const size_t first = c ? sorted->ends[c - 1] : 0;
        const size_t n_symbols =
            join_magnitudes(parameters, powers, sorted->numbers + first, sorted->ends[c] - first);

        status = press_write_run(writer, &codes[c], sorted->numbers + first, n_symbols);
    }
    return status;
}

press_status press_write_sign_rows(press_writer *writer, const uint8_t *parameters, const press_codewords *codes,
                                   const int16_t *levels, size_t count, void *scratch)
{
    const size_t n = parameters[0] ? count / parameters[0] + 1 : 0;
    uint32_t powers[MAX_GROUPED];
    press_status status = PRESS_OK;
    unsigned n_rows, n_groups, step;
    sorter sorted;

    if (!press_sign_row_symbols(parameters, &n_rows, &n_groups)) {
        return PRESS_BAD_ARGUMENT;
    }
    find_powers(parameters, powers);
    sorted.numbers = (int16_t *)scratch;
    sorted.contexts = (uint8_t *)(sorted.numbers + n);
    for (step = 0; status == PRESS_OK && step < parameters[0] / parameters[1]; step++) {
        status = put_row(writer, parameters, codes, step, levels, count, &sorted);
    }
    for (step = 0; status == PRESS_OK && step < parameters[0]; step++) {
        status = put_tap(writer, parameters, codes + n_rows / 2 + 2, powers, step, levels, count, &sorted);
    }
    return status;
}
#endif
