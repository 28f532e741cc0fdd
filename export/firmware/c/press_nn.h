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

/* 1: integers only, for cores without floating point; 0: float32, bit for bit as ONNX Runtime rounds. */
#define PRESS_NN_INTEGERS 0

/* 1: all codes go from 0 to 255; 0: every operator has bounds of its own. */
#define PRESS_NN_WHOLE_BYTES 0

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

/* ---- Scales ---- */

/* How sums become codes of the output. */
#if PRESS_NN_INTEGERS
typedef struct press_nn_scale {
    int32_t multiplier; /* the factor is multiplier / 2^shift */
    uint8_t shift;      /* 1 to 62 */
} press_nn_scale;
typedef int32_t press_nn_term; /* of a sum of two activations, in units of 2^-shift */
typedef int32_t press_nn_value; /* an output: value * 2^16 */
#else
typedef float press_nn_scale;
typedef float press_nn_term;
typedef float press_nn_value;
#endif

/* a * first + b * second + constant, rounded, is the code of a sum. */
typedef struct press_nn_sum {
    press_nn_term first, second, constant;
    uint8_t shift; /* of integers */
    uint8_t low, high;
} press_nn_sum;

/* ---- Weights ---- */

enum { PRESS_NN_HUFFMAN, PRESS_NN_PACKED };

/*
 * The weights of one layer: for every output channel a row of inputs * kernel_height * kernel_width numbers. In Huffman
 * rows zeros have no code: a mask says for each group of elements which of them are not zero, and the numbers of these
 * follow. Each is coded by one of three code tables, as the sum of the signs of its neighbours to the left and above in
 * the group is negative, zero or positive; the first weight of a kernel's row has none to the left.
 *
 * Channels are bits, the lowest first: for each output channel its bias (less input zero point times its weights), its
 * factor (the bits of a float, or a multiplier) and, of integers, its shift, all less the least of the layer.
 */
#define PRESS_NN_CONTEXTS 3
typedef struct press_nn_weights {
    const uint8_t *codes;
    const uint8_t *masks;  /* code table of the masks */
    const uint8_t *levels; /* code tables of the numbers of values, one after the other; or a single one */
    const int8_t *values;  /* what each number stands for; NULL: itself, less 128 */
    const uint8_t *channels;
    int32_t least_bias;
    uint32_t least_factor;
    uint32_t codes_size;
    uint16_t masks_size, levels_size;
    uint16_t outputs, inputs; /* inputs of one output channel */
    uint16_t n_values;
    uint8_t coding;        /* PRESS_NN_HUFFMAN or PRESS_NN_PACKED */
    uint8_t bits;          /* of a packed number */
    uint8_t group;         /* elements of a mask */
    uint8_t contexts;      /* code tables of numbers: 1 or PRESS_NN_CONTEXTS */
    uint8_t bias_bits, factor_bits, shift_bits, least_shift;
    uint8_t fits_wide;     /* whether the sums of all positive and of all negative weights times 255 are below 2^23 */
    uint8_t by_value;      /* whether inputs of equal weights are best added up before they are multiplied */
    uint8_t values_differ; /* whether every output channel has values of its own */
    uint8_t kernel_height, kernel_width;
    uint8_t stride_rows, stride_columns;
    uint8_t dilation_rows, dilation_columns;
    uint8_t pad_top, pad_left;
    uint8_t zero, low, high;  /* of the output: zero point, and bounds of its codes */
    uint16_t group_outputs;   /* output channels that read the same inputs */
} press_nn_weights;

/* Memory that decoding takes, in the arena: places in bytes from its start, and how many elements there is room for. */
typedef struct press_nn_room {
    uint32_t lookups, lookups_size; /* of code tables */
    uint32_t masks, n_masks;        /* uint16_t */
    uint32_t places;                /* uint32_t */
    uint32_t taps, n_taps;          /* pairs of uint16_t */
} press_nn_room;

/* ---- Operators: from planes to planes of one arena ---- */

/* Convolution, or matrix product (of planes of one element); zeros are skipped. */
press_nn_status press_nn_conv(uint8_t *arena, const press_nn_room *room, const press_nn_weights *weights,
                              const press_nn_planes *from, const press_nn_planes *to);

/* The same, and the sum of its codes and those of `other`, which may be `to`: sum.first is for the convolution. */
press_nn_status press_nn_conv_add(uint8_t *arena, const press_nn_room *room, const press_nn_weights *weights,
                                  const press_nn_planes *from, const press_nn_planes *other, const press_nn_sum *sum,
                                  int other_first, const press_nn_planes *to);

/* The same as press_nn_conv, with values as outputs. */
press_nn_status press_nn_conv_values(uint8_t *arena, const press_nn_room *room, const press_nn_weights *weights,
                                     const press_nn_planes *from, press_nn_value *values);

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

typedef struct press_nn_window {
    uint8_t height, width, stride_rows, stride_columns, pad_top, pad_left, dilation_rows, dilation_columns;
} press_nn_window;

void press_nn_max_pool(uint8_t *arena, const press_nn_planes *from, const press_nn_window *window,
                       const press_nn_planes *to);

/* Averages; with_pads: of whole windows, else of what lies inside the plane. */
typedef struct press_nn_average {
    press_nn_window window;
    uint8_t with_pads;
    uint8_t low, high;
#if PRESS_NN_INTEGERS
    press_nn_scale scale; /* input scale over output scale */
#else
    float input_scale, output_scale;
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
