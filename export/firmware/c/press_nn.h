/*
 * press_nn.h: a quantized network's operators in freestanding C99, on weights that stay coded in flash.
 *
 * Activations are bytes, value = (byte - zero) * scale, in planes of an arena that the caller gives. Weights are decoded
 * for one output channel at a time, and only those that are not zero are multiplied. Nothing here allocates memory,
 * keeps state between calls, or calls a library but for memcpy and memset.
 */
#ifndef PRESS_NN_H
#define PRESS_NN_H

#include <stddef.h>
#include <stdint.h>

/* 1: integers only, for cores without floating point; 0: float32. Codes are bit for bit those of ONNX Runtime. */
#define PRESS_NN_INTEGERS 0

/* 1: all codes go from 0 to 255; 0: every operator has bounds of its own. */
#define PRESS_NN_WHOLE_BYTES 0

/* 1: layers that go another way than by value, where that is possible, are so few that they are compiled for size. */
#define PRESS_NN_FEW_PRODUCTS 0

/* 1: there are more than 256 activations. */
#define PRESS_NN_MANY_PLANES 0

#ifdef __cplusplus
extern "C" {
#endif

typedef enum press_nn_status {
    PRESS_NN_OK = 0,
    PRESS_NN_SMALL_ARENA, /* fewer bytes than the model needs */
    PRESS_NN_UNALIGNED,   /* the arena does not start at a multiple of four */
    PRESS_NN_NULL,        /* a pointer is NULL */
    PRESS_NN_DAMAGED      /* codes of weights are not what was generated: the flash is damaged */
} press_nn_status;

/* ---- Activations ---- */

/*
 * An activation of C planes in the arena. Rows are pad_columns longer than the plane is wide, planes pad_rows longer
 * than they are high: what lies between them holds `zero`, and so does as much in front of the first plane. A padded
 * convolution reads there.
 */
typedef struct press_nn_planes {
    uint32_t place; /* of the first element, in bytes from the arena's start */
    uint16_t channels, height, width;
    uint8_t pad_rows, pad_columns, zero;
} press_nn_planes;

/* Which planes, of an array of them. */
#if PRESS_NN_MANY_PLANES
typedef uint16_t press_nn_number;
#else
typedef uint8_t press_nn_number;
#endif

/* ---- Scales ---- */

/* How sums become codes of the output. */
#if PRESS_NN_INTEGERS
typedef uint32_t press_nn_scale; /* the bits of a float32 above 0 */
typedef uint32_t press_nn_term;  /* the bits of a float32 */
typedef int32_t press_nn_value;  /* an output: value * 2^16 */
#else
typedef float press_nn_scale;
typedef float press_nn_term;
typedef float press_nn_value;
#endif

/* a * first + b * second + constant, rounded, is the code of a sum. */
typedef struct press_nn_sum {
    press_nn_term first, second, constant;
    uint8_t shift; /* of integers: in units of 2^-shift, no code of a sum is beyond 2^30 */
    uint8_t low, high;
} press_nn_sum;

/* ---- Weights ---- */

/*
 * The weights of one layer: for every output channel a row of inputs * kernel_height * kernel_width numbers. In Huffman
 * rows zeros have no code: a mask says for each group of elements which of them are not zero, and their numbers follow it.
 * Each is coded by one of three code tables, as the sum of the signs of its neighbours to the left and above in the
 * group is negative, zero or positive; the first weight of a kernel's row has none to the left.
 *
 * All data of a layer lie one after the other, PRESS_NN_BEHIND bytes of whatever behind the last one:
 * - channels, as bits, the lowest first: for each output channel its bias (less input zero point times its weights) and
 *   the bits of its factor, a float32, both less the least of the layer; with a unit, a number whose float32 ends in
 *   PRESS_NN_SHORT zeros is in place of the factor, and what the bits of unit times number are less than the factor's;
 * - values: what each number stands for; without any, itself less 128;
 * - of Huffman rows the code tables of the numbers, three or one;
 * - the codes.
 */
#define PRESS_NN_CONTEXTS 3
#define PRESS_NN_SHORT 13 /* of a float16 */
#define PRESS_NN_BEHIND 16

enum {
    PRESS_NN_PACKED = 1,       /* numbers of a fixed width, no Huffman codes */
    PRESS_NN_HAS_CONTEXTS = 2, /* three code tables of numbers */
    PRESS_NN_HAS_VALUES = 4,
    PRESS_NN_OWN_VALUES = 8,   /* every output channel has values of its own */
    PRESS_NN_FITS_WIDE = 16,   /* the sums of all positive and of all negative weights times 255 are below 2^23 */
    PRESS_NN_ADDS_BY_VALUE = 32, /* inputs of equal weights are best added up before they are multiplied */
    PRESS_NN_HAS_SUM = 64,     /* its codes are added to those of `other`, which may be those of `to` */
    PRESS_NN_OTHER_FIRST = 128 /* in the order of the sum */
};

/* A kernel, and how it moves. */
typedef struct press_nn_window {
    uint8_t height, width, stride_rows, stride_columns, pad_top, pad_left, dilation_rows, dilation_columns;
} press_nn_window;

typedef struct press_nn_weights {
    const uint8_t *data;
    const uint8_t *masks; /* code table of the masks; layers share them */
    int32_t least_bias;
    uint32_t least_factor, unit;
    uint32_t size; /* of code tables of numbers, and codes */
    uint16_t masks_size;
    uint16_t outputs, inputs; /* inputs of one output channel */
    uint16_t n_values;
    uint16_t group_outputs; /* output channels that read the same inputs */
    press_nn_number from, to, other, sum; /* of planes, and of a sum */
    uint8_t facts; /* which of the above hold */
    uint8_t bits;  /* of a packed number */
    uint8_t group; /* elements of a mask */
    uint8_t bias_bits, factor_bits, more_bits;
    int8_t least_more;
    uint8_t window;
    uint8_t zero; /* of the output */
#if !PRESS_NN_WHOLE_BYTES
    uint8_t low, high; /* bounds of its codes */
#endif
} press_nn_weights;

/* Memory that decoding takes, in the arena: places in bytes from its start, and how many elements there is room for. */
typedef struct press_nn_room {
    uint32_t lookups, lookups_size; /* of code tables */
    uint32_t places;                /* uint32_t */
    uint32_t taps, n_taps;          /* pairs of uint16_t */
} press_nn_room;

/* All layers with weights, and what they speak of by number. */
typedef struct press_nn_layers {
    const press_nn_weights *weights;
    const press_nn_planes *planes;
    const press_nn_sum *sums;
    const press_nn_window *windows;
    press_nn_room room;
} press_nn_layers;

/* ---- Operators: from planes to planes of one arena ---- */

/*
 * Convolutions, or matrix products (of planes of one element), from number `first` to `end` - 1; zeros are skipped. With
 * `values`, which may be NULL, what each makes goes there and is no code.
 */
press_nn_status press_nn_run_layers(uint8_t *arena, const press_nn_layers *layers, unsigned first, unsigned end,
                                    press_nn_value *values);

/* Sum of two activations of one size. */
void press_nn_add(uint8_t *arena, const press_nn_planes *a, const press_nn_planes *b, const press_nn_sum *sum,
                  const press_nn_planes *to);

/* Product of two; b may have planes of one element. */
void press_nn_multiply(uint8_t *arena, const press_nn_planes *a, const press_nn_planes *b, press_nn_scale scale,
                       uint8_t low, uint8_t high, const press_nn_planes *to);

/* Every code by a table of 256; NULL: as it is. The planes go to channel `first` of `to` and on, from row and column. */
void press_nn_table(uint8_t *arena, const press_nn_planes *from, const uint8_t *table, const press_nn_planes *to,
                    unsigned first, unsigned row, unsigned column);

/* Zeros everywhere. */
void press_nn_fill(uint8_t *arena, const press_nn_planes *to);

void press_nn_max_pool(uint8_t *arena, const press_nn_planes *from, const press_nn_window *window,
                       const press_nn_planes *to);

/* Averages; with_pads: of whole windows, else of what lies inside the plane. */
typedef struct press_nn_average {
    press_nn_window window;
    uint8_t with_pads;
    uint8_t low, high;
    press_nn_scale input_scale, output_scale;
#if PRESS_NN_INTEGERS
    press_nn_scale scale; /* of the input over that of the output */
#endif
} press_nn_average;

void press_nn_average_pool(uint8_t *arena, const press_nn_planes *from, const press_nn_average *average,
                           const press_nn_planes *to);

/* Over whole planes; the scale is that of a sum. */
void press_nn_global_average(uint8_t *arena, const press_nn_planes *from, press_nn_scale scale, uint8_t low,
                             uint8_t high, const press_nn_planes *to);

/* ---- In and out ---- */

/* Codes, channel by channel, into their planes. */
void press_nn_enter(uint8_t *arena, const uint8_t *codes, const press_nn_planes *to);

/* The reverse. */
void press_nn_leave(const uint8_t *arena, const press_nn_planes *from, uint8_t *codes);

/* Codes of n bytes, those of a channel by its table of 256. */
void press_nn_enter_bytes(const uint8_t *bytes, const uint8_t *tables, size_t channels, size_t n, uint8_t *codes);

#if !PRESS_NN_INTEGERS
/* Codes of values. */
void press_nn_quantize(const float *values, size_t n, float scale, uint8_t zero, uint8_t *codes);
#endif
/* Values of codes: (code - zero) * scale. */
void press_nn_values(const uint8_t *arena, const press_nn_planes *from, press_nn_scale scale, press_nn_value *values);

/* In place: exp(value) over the sum of all, each within 2^-20 of it. */
void press_nn_softmax(press_nn_value *values, size_t n);

/* Number of the largest value; of equals the first. */
size_t press_nn_largest(const press_nn_value *values, size_t n);

#ifdef __cplusplus
}
#endif

#endif
