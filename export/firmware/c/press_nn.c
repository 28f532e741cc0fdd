/* The operators without weights. */
#include "press_nn_arithmetic.h"

/* What has no weights takes few instructions of a network. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("Os")
#endif

void press_nn_fill_pads(uint8_t *arena, const press_nn_planes *planes)
{
    const uint32_t row = press_nn_row(planes), between = planes->pad_rows * row;
    uint8_t *at = arena + planes->place;
    uint32_t channel, y, x;

    if (between + planes->pad_columns == 0) {
        return;
    }
    memset(at - between - planes->pad_columns, planes->zero, between + planes->pad_columns);
    for (channel = 0; channel < planes->channels; channel++) {
        for (y = 0; y < planes->height; y++, at += row) {
            for (x = planes->width; x < row; x++) {
                at[x] = planes->zero;
            }
        }
        memset(at, planes->zero, between);
        at += between;
    }
}

/* Row y of a channel. */
static uint8_t *row_of(uint8_t *arena, const press_nn_planes *planes, uint32_t channel, uint32_t y)
{
    return arena + planes->place + channel * press_nn_pitch(planes) + y * press_nn_row(planes);
}

void press_nn_add(uint8_t *arena, const press_nn_planes *a, const press_nn_planes *b, const press_nn_sum *sum,
                  const press_nn_planes *to)
{
    const press_nn_terms terms = press_nn_terms_of(sum);
    uint32_t channel, y, x;

    for (channel = 0; channel < to->channels; channel++) {
        for (y = 0; y < to->height; y++) {
            const uint8_t *first = row_of(arena, a, channel, y), *second = row_of(arena, b, channel, y);
            uint8_t *out = row_of(arena, to, channel, y);

            for (x = 0; x < to->width; x++) {
                out[x] = press_nn_sum_code(first[x], second[x], &terms);
            }
        }
    }
    press_nn_fill_pads(arena, to);
}

void press_nn_multiply(uint8_t *arena, const press_nn_planes *a, const press_nn_planes *b, press_nn_scale scale,
                       uint8_t low, uint8_t high, const press_nn_planes *to)
{
    const int one = b->height == 1 && b->width == 1; /* a number for each channel */
    uint32_t channel, y, x;

    for (channel = 0; channel < to->channels; channel++) {
        for (y = 0; y < to->height; y++) {
            const uint8_t *first = row_of(arena, a, channel, y), *second = row_of(arena, b, channel, one ? 0 : y);
            uint8_t *out = row_of(arena, to, channel, y);

            for (x = 0; x < to->width; x++) {
                int32_t product = ((int32_t)first[x] - a->zero) * ((int32_t)second[one ? 0 : x] - b->zero);
#if PRESS_NN_INTEGERS
                out[x] = press_nn_byte(press_nn_exact_product(product, scale, to->zero), low, high);
#else
                float value = (float)product * scale + (float)to->zero; /* rounded with its zero point */

                out[x] = (uint8_t)press_nn_nearest(press_nn_clamped(value, (float)low, (float)high), 0);
#endif
            }
        }
    }
    press_nn_fill_pads(arena, to);
}

void press_nn_table(uint8_t *arena, const press_nn_planes *from, const uint8_t *table, const press_nn_planes *to,
                    unsigned first, unsigned row, unsigned column)
{
    uint32_t channel, y, x;

    for (channel = 0; channel < from->channels; channel++) {
        for (y = 0; y < from->height; y++) {
            const uint8_t *in = row_of(arena, from, channel, y);
            uint8_t *out = row_of(arena, to, first + channel, row + y) + column;

            for (x = 0; x < from->width; x++) {
                out[x] = table ? table[in[x]] : in[x];
            }
        }
    }
    press_nn_fill_pads(arena, to);
}

void press_nn_fill(uint8_t *arena, const press_nn_planes *to)
{
    memset(arena + to->place, to->zero, to->channels * press_nn_pitch(to));
}

/* ---- Pools ---- */

/* The part of a window that lies inside a plane: rows first to last - 1, columns alike. */
typedef struct part {
    int32_t first, last;
} part;

static part part_of(uint32_t at, unsigned stride, unsigned pad, unsigned size, unsigned dilation, unsigned length)
{
    part found;

    found.first = (int32_t)(at * stride) - (int32_t)pad;
    found.last = found.first + (int32_t)(size * dilation);
    while (found.first < 0) {
        found.first += (int32_t)dilation;
    }
    found.last = found.last < (int32_t)length ? found.last : (int32_t)length;
    return found;
}

void press_nn_max_pool(uint8_t *arena, const press_nn_planes *from, const press_nn_window *window,
                       const press_nn_planes *to)
{
    uint32_t channel, y, x;
    int32_t v, u;

    for (channel = 0; channel < to->channels; channel++) {
        for (y = 0; y < to->height; y++) {
            uint8_t *out = row_of(arena, to, channel, y);
            part rows = part_of(y, window->stride_rows, window->pad_top, window->height, window->dilation_rows,
                                from->height);

            for (x = 0; x < to->width; x++) {
                part columns = part_of(x, window->stride_columns, window->pad_left, window->width,
                                       window->dilation_columns, from->width);
                uint8_t largest = 0;

                for (v = rows.first; v < rows.last; v += window->dilation_rows) {
                    const uint8_t *in = row_of(arena, from, channel, (uint32_t)v);

                    for (u = columns.first; u < columns.last; u += window->dilation_columns) {
                        largest = in[u] > largest ? in[u] : largest;
                    }
                }
                out[x] = largest;
            }
        }
    }
    press_nn_fill_pads(arena, to);
}

#if PRESS_NN_INTEGERS
/*
 * What a mean of n codes is as a code, or -1 where it is so near to two codes that rounded floats decide; these are off by
 * less than 2^-8 where no more than MOST_MEANT were added.
 */
#define MOST_MEANT 100

static int32_t mean_code(int32_t sum, int32_t n, press_nn_scale scale, int32_t zero)
{
    const int32_t shift = 150 - (int32_t)(scale >> 23);
    int64_t parts, total, code;

    if (n > MOST_MEANT || shift < 8 || shift > 40) {
        return -1;
    }
    parts = (int64_t)n << shift; /* of a code, which begins half a code below itself; none is below -512 */
    total = (int64_t)sum * ((int32_t)(scale & 0x7FFFFFu) + 0x800000) + parts / 2 + (zero + 512) * parts;
    if (total < 0) {
        return 0;
    }
    code = total / parts;
    total -= code * parts;
    return total < parts / 256 || total > parts - parts / 256 ? -1 : (int32_t)(code < 512 ? 0 : code - 512);
}
#endif

/* The mean of a window's part, as a code. */
static uint8_t average_of(uint8_t *arena, const press_nn_planes *from, uint32_t channel, part rows, part columns,
                          const press_nn_average *average, uint8_t zero)
{
    int32_t n = (rows.last - rows.first) * (columns.last - columns.first), v, u;
#if PRESS_NN_INTEGERS
    press_nn_mean mean = press_nn_mean_of_none();
    int32_t sum = 0, code;
#else
    float sum = 0, value;
#endif

    if (average->with_pads) {
        n = (int32_t)average->window.height * average->window.width;
    }
    for (v = rows.first; v < rows.last; v++) {
        const uint8_t *in = row_of(arena, from, channel, (uint32_t)v);

        for (u = columns.first; u < columns.last; u++) {
#if PRESS_NN_INTEGERS
            sum += (int32_t)in[u] - from->zero;
#else
            sum += average->input_scale * (float)((int32_t)in[u] - from->zero);
#endif
        }
    }
#if PRESS_NN_INTEGERS
    code = mean_code(sum, n, average->scale, zero);
    for (v = rows.first; code < 0 && v < rows.last; v++) {
        const uint8_t *in = row_of(arena, from, channel, (uint32_t)v);

        for (u = columns.first; u < columns.last; u++) {
            press_nn_mean_add(&mean, (int32_t)in[u] - from->zero, average->input_scale);
        }
    }
    code = code < 0 ? press_nn_mean_code(&mean, n, average->output_scale, zero) : code;
    return (uint8_t)press_nn_within(code, average->low, average->high);
#else
    value = sum / (float)n / average->output_scale + (float)zero;
    return (uint8_t)press_nn_nearest(press_nn_clamped(value, (float)average->low, (float)average->high), 0);
#endif
}

void press_nn_average_pool(uint8_t *arena, const press_nn_planes *from, const press_nn_average *average,
                           const press_nn_planes *to)
{
    const press_nn_window *window = &average->window;
    uint32_t channel, y, x;

    for (channel = 0; channel < to->channels; channel++) {
        for (y = 0; y < to->height; y++) {
            uint8_t *out = row_of(arena, to, channel, y);
            part rows = part_of(y, window->stride_rows, window->pad_top, window->height, 1, from->height);

            for (x = 0; x < to->width; x++) {
                part columns = part_of(x, window->stride_columns, window->pad_left, window->width, 1, from->width);

                out[x] = average_of(arena, from, channel, rows, columns, average, to->zero);
            }
        }
    }
    press_nn_fill_pads(arena, to);
}

void press_nn_global_average(uint8_t *arena, const press_nn_planes *from, press_nn_scale scale, uint8_t low,
                             uint8_t high, const press_nn_planes *to)
{
    uint32_t channel, y, x;

    for (channel = 0; channel < from->channels; channel++) {
        int32_t sum = 0;

        for (y = 0; y < from->height; y++) {
            const uint8_t *in = row_of(arena, from, channel, y);

            for (x = 0; x < from->width; x++) {
                sum += (int32_t)in[x] - from->zero;
            }
        }
        *row_of(arena, to, channel, 0) = press_nn_code(sum, press_nn_factor_of(scale), to->zero, low, high);
    }
    press_nn_fill_pads(arena, to);
}

/* ---- In and out ---- */

void press_nn_enter(uint8_t *arena, const uint8_t *codes, const press_nn_planes *to)
{
    uint32_t channel, y;

    for (channel = 0; channel < to->channels; channel++) {
        for (y = 0; y < to->height; y++, codes += to->width) {
            memcpy(row_of(arena, to, channel, y), codes, to->width);
        }
    }
    press_nn_fill_pads(arena, to);
}

void press_nn_enter_bytes(const uint8_t *bytes, const uint8_t *tables, size_t channels, size_t n, uint8_t *codes)
{
    size_t channel, k;

    for (channel = 0; channel < channels; channel++, tables += 256) {
        for (k = 0; k < n; k++) {
            *codes++ = tables[*bytes++];
        }
    }
}

static const uint8_t *const_row_of(const uint8_t *arena, const press_nn_planes *planes, uint32_t channel, uint32_t y)
{
    return arena + planes->place + channel * press_nn_pitch(planes) + y * press_nn_row(planes);
}

void press_nn_leave(const uint8_t *arena, const press_nn_planes *from, uint8_t *codes)
{
    uint32_t channel, y;

    for (channel = 0; channel < from->channels; channel++) {
        for (y = 0; y < from->height; y++, codes += from->width) {
            memcpy(codes, const_row_of(arena, from, channel, y), from->width);
        }
    }
}

void press_nn_values(const uint8_t *arena, const press_nn_planes *from, press_nn_scale scale, press_nn_value *values)
{
    uint32_t channel, y, x;

    for (channel = 0; channel < from->channels; channel++) {
        for (y = 0; y < from->height; y++) {
            const uint8_t *in = const_row_of(arena, from, channel, y);

            for (x = 0; x < from->width; x++) {
#if PRESS_NN_INTEGERS
                *values++ = press_nn_exact_value((int32_t)in[x] - from->zero, scale);
#else
                *values++ = (float)((int32_t)in[x] - from->zero) * scale;
#endif
            }
        }
    }
}

#if !PRESS_NN_INTEGERS
void press_nn_quantize(const float *values, size_t n, float scale, uint8_t zero, uint8_t *codes)
{
    size_t k;

    for (k = 0; k < n; k++) {
        float value = press_nn_clamped(values[k] / scale, -(float)zero, 255.0f - (float)zero);

        codes[k] = (uint8_t)press_nn_nearest(value, zero);
    }
}
#endif

size_t press_nn_largest(const press_nn_value *values, size_t n)
{
    size_t best = 0, k;

    for (k = 1; k < n; k++) {
        best = values[k] > values[best] ? k : best;
    }
    return best;
}

#if PRESS_NN_INTEGERS
/* exp(x / 2^16) * 2^30 of x <= 0. */
static uint32_t exponential(int32_t x)
{
    /* in powers of two: the whole part shifts, 2^f for f in [0, 1) is a polynomial in units of 2^-30 */
    int64_t power = (int64_t)x * 94548; /* log2(e) * 2^16 */
    int64_t whole = power >> 32, part = (power & 0xFFFFFFFF) >> 2, sum = 1437418; /* of 2^30 */

    sum = (sum * part >> 30) + 10311286;
    sum = (sum * part >> 30) + 59600296;
    sum = (sum * part >> 30) + 257958304;
    sum = (sum * part >> 30) + 744267752;
    sum = (sum * part >> 30) + 1073741824;
    return whole < -31 ? 0 : (uint32_t)((uint64_t)sum >> -whole);
}

void press_nn_softmax(press_nn_value *values, size_t n)
{
    const press_nn_value largest = values[press_nn_largest(values, n)];
    uint64_t total = 0;
    size_t k;

    for (k = 0; k < n; k++) {
        values[k] = (press_nn_value)exponential(values[k] - largest);
        total += (uint32_t)values[k];
    }
    for (k = 0; k < n; k++) {
        values[k] = (press_nn_value)((((uint64_t)(uint32_t)values[k] << 16) + total / 2) / total);
    }
}
#else
/* exp(x) of x <= 0. */
static float exponential(float x)
{
    float whole, rest, sum;
    int32_t power;
    uint32_t bits;

    if (!(x > -87.0f)) {
        return 0;
    }
    power = press_nn_nearest(x * 1.44269504f, 0);
    whole = (float)power;
    rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f; /* ln 2 in two parts */
    sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    memcpy(&bits, &sum, sizeof bits);
    bits += (uint32_t)power << 23;
    memcpy(&sum, &bits, sizeof sum);
    return sum;
}

void press_nn_softmax(press_nn_value *values, size_t n)
{
    const press_nn_value largest = values[press_nn_largest(values, n)];
    float total = 0;
    size_t k;

    for (k = 0; k < n; k++) {
        values[k] = exponential(values[k] - largest);
        total += values[k];
    }
    for (k = 0; k < n; k++) {
        values[k] /= total;
    }
}
#endif
