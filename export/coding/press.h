/*
 * press.h: the codes of the .press format (../press/FORMAT.md), in freestanding C99.
 *
 * Nothing here allocates memory, keeps state between calls or calls a library, but for memcpy and memset. Callers
 * give every buffer, and ask beforehand how large it must be. Every read is bounded by the bytes given: any bytes
 * whatever are decoded or refused. Results are the same on every machine: 32 or 64 bits, of either byte order, and
 * no pointer given needs any alignment but those to structures and those marked "aligned".
 *
 *     bytes of one tensor ("blob") --> values      press_scratch_size, press_decode_values
 *                                  --> codes       press_scratch_size, press_decode_codes, press_dequantize
 *     codes --> levels --> blob                    press_levels, press_count_*, press_write_*, press_mixed_encode
 *
 * A program that reads whole files needs the first line only; the reader of files is in press_reader.h.
 *
 * Compile for small devices with -Os and PRESS_SMALL defined: what is there for speed alone, look-ups of several
 * symbols at once and conversions channel by channel, is left out. PRESS_NO_ENCODER leaves out writing, PRESS_NO_MIXED
 * mixed contexts (1.5 MB of state), PRESS_NO_1_0 the encodings of version 1.0, which writers use no longer,
 * PRESS_NO_MESSAGES the texts.
 */
#ifndef PRESS_H
#define PRESS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- What comes of a call ---------------------------------------------------------------------------------- */

/*
 * PRESS_OK, or why not. What was to be filled is then undefined, unless said otherwise. The bytes are damaged where
 * nothing else is said; values never change, new ones come before PRESS_STATUSES.
 */
typedef enum press_status {
    PRESS_OK = 0,
    PRESS_ENDS_EARLY,        /* a field or a stream needs more bytes than there are */
    PRESS_LEFT_OVER,         /* bytes are left that nothing reads */
    PRESS_PADDING,           /* unused bits are not zero */
    PRESS_BAD_INTEGER,       /* a varint of more than nine bytes, or not in its shortest form */
    PRESS_BAD_TABLE,         /* a code table: too large, no prefix code, or with symbols that the encoding has not */
    PRESS_EMPTY_TABLE,       /* a code table without codewords, but symbols follow */
    PRESS_STORED_ZERO,       /* a code for nonzero levels has a codeword for 0 */
    PRESS_NO_SUCH_TABLES,    /* a reference to shared code tables that do not exist, or are another number */
    PRESS_BAD_LANE,          /* a lane does not end with its last symbol */
    PRESS_BAD_GRID,          /* flags, width or axis that are not defined */
    PRESS_BAD_SCALE,         /* a scale is not positive, or a parameter is not finite */
    PRESS_OVERFLOW,          /* the largest value overflows the type of the tensor */
    PRESS_BAD_CODE,          /* a level stands for no code */
    PRESS_BAD_GAPS,          /* more gaps than elements, a last gap that is a filler, a position beyond the end */
    PRESS_BAD_KERNELS,       /* parameters of kernel masks that are not defined, or a mask beyond the end */
    PRESS_BAD_MIXED,         /* a stream of mixed contexts holds a magnitude beyond its tensor's, or ends early */
    PRESS_MIXED_END,         /* a stream of mixed contexts does not end where, or as, its levels end */
    PRESS_BAD_ROWS,          /* rows too long for mixed contexts */
    PRESS_BAD_TYPE,          /* this encoding does not hold tensors of this type or shape */
    PRESS_BAD_VALUE,         /* a float that is not finite, a bool, or a number of few bits, beyond its type */
    PRESS_BAD_PLANE,         /* a kind of byte plane that is not defined, or a table beyond a byte */
    PRESS_BAD_CSR,           /* compressed sparse rows that contradict each other */
    PRESS_BAD_ENCODING,      /* not damaged: an encoding that this reader does not know */
    PRESS_LEFT_OUT,          /* not damaged: this build leaves the encoding out */
    PRESS_SMALL_BUFFER,      /* not damaged: a buffer of the caller is smaller than was asked for */
    PRESS_BAD_ARGUMENT,      /* not damaged: the call makes no sense */
    /* of whole files: ../press/c/press_reader.h */
    PRESS_NO_PRESS_FILE,     /* the magic number is missing */
    PRESS_WRONG_SIZE,        /* more or fewer bytes than the header declares */
    PRESS_CHANGED,           /* a checksum differs: bytes changed since they were written */
    PRESS_BAD_CHUNKS,        /* chunks that are missing, occur twice, are too large or go beyond the end */
    PRESS_BAD_ZLIB,          /* a zlib stream that is damaged, or inflates to another size */
    PRESS_BAD_DIRECTORY,     /* a field of the tensor directory is out of range, or lengths do not add up */
    PRESS_BAD_NAME,          /* a name that is empty, too long, no UTF-8, not printable, or used twice */
    PRESS_BAD_GRAPH,         /* no ModelProto, or one with initializers or external data */
    PRESS_NEWER,             /* not damaged: another major version, or a critical chunk that is unknown */
    PRESS_TOO_LARGE,         /* not damaged: the tensors are larger than the limit given */
    PRESS_OUT_OF_ORDER,      /* not damaged: tensors of mixed contexts are read in the order of the file */
    /* of version 1.2 */
    PRESS_BAD_SPLIT,         /* split values: fields that are not defined, or a zero that is not written as one */
    PRESS_BAD_SIGN_ROWS,     /* parameters of sign rows that are not defined, or signs or magnitudes beyond the end */
    PRESS_BAD_LZMA,          /* an LZMA stream that is damaged, or of another size */
    PRESS_STATUSES           /* how many there are */
} press_status;

/* What a status means, in a few English words; never NULL. */
const char *press_message(press_status status);

/* ---- A tensor ---------------------------------------------------------------------------------------------- */

#define PRESS_MAX_DIMENSIONS 8

/* FORMAT.md, "Huffman encodings", "Runs", "Mixed contexts"; only tests and fuzzers set others, to reach what is behind. */
#ifndef PRESS_SLAB_ELEMENTS
#define PRESS_SLAB_ELEMENTS ((size_t)1 << 24)
#endif
#ifndef PRESS_KERNEL_SLAB
#define PRESS_KERNEL_SLAB ((size_t)1 << 22)
#endif
#ifndef PRESS_MIXED_SLAB
#define PRESS_MIXED_SLAB ((size_t)1 << 20)
#endif
#ifndef PRESS_LANE_SYMBOLS
#define PRESS_LANE_SYMBOLS ((size_t)1 << 14)
#endif
#define PRESS_MAX_ALPHABET 1024

/* ONNX TensorProto.DataType, as the tensor directory has it. */
enum {
    PRESS_FLOAT = 1, PRESS_UINT8 = 2, PRESS_INT8 = 3, PRESS_UINT16 = 4, PRESS_INT16 = 5, PRESS_INT32 = 6,
    PRESS_INT64 = 7, PRESS_BOOL = 9, PRESS_FLOAT16 = 10, PRESS_DOUBLE = 11, PRESS_UINT32 = 12, PRESS_UINT64 = 13,
    PRESS_BFLOAT16_TYPE = 16, PRESS_FLOAT8_E4M3FN = 17, PRESS_FLOAT8_E4M3FNUZ = 18, PRESS_FLOAT8_E5M2 = 19,
    PRESS_FLOAT8_E5M2FNUZ = 20, PRESS_UINT4 = 21, PRESS_INT4 = 22, PRESS_FLOAT4_E2M1 = 23, PRESS_FLOAT8_E8M0 = 24,
    PRESS_UINT2 = 25, PRESS_INT2 = 26
};

/* Encodings, see FORMAT.md. */
enum {
    PRESS_RAW = 0, PRESS_PACKED_1_0 = 1, PRESS_HUFFMAN_1_0 = 2, PRESS_CSR_1_0 = 3, PRESS_BYTE_PLANES = 4,
    PRESS_PACKED = 5, PRESS_HUFFMAN = 6, PRESS_CSR = 7, PRESS_BITMAP = 8, PRESS_KERNEL_MASKS = 9,
    PRESS_MIXED = 10, PRESS_HALF = 11, PRESS_BFLOAT16 = 12, PRESS_CODED_PLANES = 13,
    PRESS_SPLIT = 14, PRESS_SPLIT_MIXED = 15, PRESS_ANY_BITS = 16,
    PRESS_SIGN_ROWS = 17, PRESS_LZMA = 18, PRESS_SAME = 19, PRESS_LINKED = 20, PRESS_SPLIT_LINKED = 21
};

/* One line of the tensor directory, and its blob. */
typedef struct press_tensor {
    uint8_t type;       /* PRESS_FLOAT ... */
    uint8_t encoding;   /* PRESS_RAW ... */
    uint8_t n_dims;     /* 0 to PRESS_MAX_DIMENSIONS */
    uint32_t dims[PRESS_MAX_DIMENSIONS];
    const uint8_t *blob;
    size_t blob_size;
} press_tensor;

/* Bytes of an element of this type in memory, 1 where it has fewer bits; 0 if it is none of the above. */
size_t press_type_size(unsigned type);

/*
 * Number of elements into *count. PRESS_BAD_TYPE: more than 8 dimensions, more than 2^32 - 1 elements (zeros counted as
 * ones), or more bytes than size_t can count.
 */
press_status press_count_elements(const press_tensor *tensor, size_t *count);

/* ---- What the tensors of a file share -------------------------------------------------------------------------- */

/* What the chunk TABL holds, or TABZ decompressed. A file without one: all zero, or NULL wherever it is asked for. */
typedef struct press_shared {
    const uint8_t *data;
    size_t size;
    unsigned n_groups;
    uint32_t starts[255];   /* where each group begins, at its number of tables */
} press_shared;

/* Check the whole chunk, and find its groups. The bytes must stay where they are. */
press_status press_shared_open(press_shared *shared, const uint8_t *data, size_t size);

/*
 * What mixed contexts have learned from the tensors of a file so far, in file order: one for each file that holds such
 * tensors, in memory of the caller. About 1.5 MB. Copy it by assignment.
 */
#define PRESS_CONTEXTS 113634
#define PRESS_WEIGHT_SETS 183
#define PRESS_LINKED_CONTEXTS (PRESS_CONTEXTS + 9 + 243 + 170 * 128)
#define PRESS_MIXED_INPUTS 11
typedef struct press_mixing {
    uint64_t counters[PRESS_CONTEXTS];   /* slow: 22 bits, fast: 22 bits, visits: 10 bits */
    int64_t weights[PRESS_WEIGHT_SETS][PRESS_MIXED_INPUTS];
    uint32_t linked[PRESS_LINKED_CONTEXTS];   /* of linked contexts: 22 bits, visits: 10 bits */
    int16_t linked_weights[PRESS_WEIGHT_SETS][8];
    int16_t stretch[4096];               /* tables; the core has no memory of its own */
    uint16_t squash[4095];
    uint16_t rates[1001];
} press_mixing;

/* As a file begins. */
void press_mixing_start(press_mixing *mixing);

/* ---- Reading a tensor ------------------------------------------------------------------------------------------ */

/*
 * The quantization grid at the front of a blob. The parameters stay where they are in the blob: read them with
 * press_parameter.
 */
typedef struct press_grid {
    uint8_t bits;         /* 2 to 8 */
    uint8_t axis;         /* which dimension counts channels */
    uint8_t flags;        /* PRESS_OFFSET ... */
    uint8_t type;         /* PRESS_FLOAT or PRESS_FLOAT16 */
    size_t elements;      /* of the tensor */
    size_t channels;      /* length of the axis */
    size_t inner;         /* elements from one channel to the next: the product of the dimensions after the axis */
    size_t n_scales;      /* of scale and offset: 1, or one for each channel */
    const uint8_t *scale;
    const uint8_t *offset;          /* NULL: none */
    const uint8_t *channel_scale;   /* NULL: none */
} press_grid;

enum {
    PRESS_OFFSET = 1, PRESS_SUPPORT = 2, PRESS_PER_CHANNEL = 4, PRESS_CHANNEL_SCALE = 8,
    PRESS_SHORT_SCALE = 16, PRESS_SHORT_OFFSET = 32, PRESS_SHORT_CHANNEL_SCALE = 64,
    PRESS_SIGNED_CENTRE = 128
};

/* Element k of a parameter; is_half: whether it is stored in 16 bits (grid->flags & PRESS_SHORT_...). */
float press_parameter(const uint8_t *parameter, size_t k, int is_half);

/* How the bytes of a blob divide. */
typedef struct press_parts {
    size_t header, scales, tables, payload;
} press_parts;

/* Whether tensors of this encoding hold codes: what press_decode_codes takes. */
int press_is_quantized(unsigned encoding);

/* Whether tensors of this encoding need the state of mixed contexts: all of them are read in the order of the file. */
int press_is_mixed(unsigned encoding);

/* Whether an encoding is a stream of zlib or LZMA, which the reader of files decodes, not press_decode_values. */
int press_is_compressed(unsigned encoding);

/*
 * Bytes of scratch memory, aligned as for uint64_t, that decoding this tensor needs, into *size. It looks at the front
 * of the blob. At most 4 bytes for each of min(elements, 2^24) and half a MB; mixed contexts with few rows take more.
 */
press_status press_scratch_size(const press_tensor *tensor, size_t *size);

/*
 * Decode a tensor of any encoding but PRESS_BYTE_PLANES (inflate its blob, then press_join_planes) into its values:
 * elements x press_type_size bytes at `values`, row-major, in this machine's byte order, aligned as for their type.
 *
 *     shared    may be NULL if the file has neither TABL nor TABZ
 *     mixing    needed for press_is_mixed alone, with the state after all such tensors before; of no more use after an error
 *     scratch   press_scratch_size bytes, aligned as for uint64_t
 *     parts     may be NULL; filled where all is well
 */
press_status press_decode_values(const press_tensor *tensor, const press_shared *shared, press_mixing *mixing,
                                 void *scratch, size_t scratch_size, void *values, size_t values_size,
                                 press_parts *parts);

/*
 * Decode a quantized tensor into its codes, a byte each (int8_t without PRESS_OFFSET, else uint8_t), 0 outside the
 * support; and the support, 1 or 0 for each element, which may be NULL if nobody asks. The grid is filled first, and
 * stays of use while the blob does.
 */
press_status press_decode_codes(const press_tensor *tensor, const press_shared *shared, press_mixing *mixing,
                                void *scratch, size_t scratch_size, uint8_t *codes, uint8_t *support,
                                press_grid *grid, press_parts *parts);

/* Read and check the grid at the front of a blob of an encoding of codes; *size: the bytes it takes. */
press_status press_read_grid(const press_tensor *tensor, press_grid *grid, size_t *size);

/*
 * Values of the `count` elements from `start` on: codes and support are theirs (support may be NULL without
 * PRESS_SUPPORT), `values` has room for as many float or, for a tensor of PRESS_FLOAT16, uint16_t.
 */
void press_dequantize(const press_grid *grid, size_t start, size_t count, const uint8_t *codes,
                      const uint8_t *support, void *values);

/*
 * The byte planes of PRESS_BYTE_PLANES, inflated: planes_size must be elements x press_type_size. Fills `values` as
 * press_decode_values does.
 */
press_status press_join_planes(const press_tensor *tensor, const uint8_t *planes, size_t planes_size, void *values);

/*
 * Compressed sparse rows to dense codes: `codes` (rows x columns bytes) and `support` (the same, or NULL) are filled.
 * PRESS_BAD_CSR: row pointers do not rise from 0 to n, or columns do not rise inside a row, or lie outside.
 */
press_status press_csr_to_dense(const uint8_t *data, const int64_t *indices, const int64_t *indptr, size_t n,
                                size_t rows, size_t columns, uint8_t *codes, uint8_t *support);

/* ---- Runs of Huffman symbols ------------------------------------------------------------------------------------ */

/* A code table as it is stored. */
typedef struct press_code {
    int32_t lowest;         /* what symbol 0 stands for */
    uint16_t n;             /* symbols, 0 to PRESS_MAX_ALPHABET */
    uint16_t used;          /* symbols with a codeword */
    uint16_t only;          /* the symbol, where just one has a codeword: its runs take no bits */
    uint8_t width;          /* bits of the longest codeword, up to 15 */
    const uint8_t *lengths; /* n codeword lengths of 4 bits, low half first */
} press_code;

/* Read a code table from the front of some bytes; *taken: how many it has. */
press_status press_read_code(const uint8_t *data, size_t size, press_code *code, size_t *taken);

/* Bytes, aligned as for uint64_t, of the look-up tables for a code; many: for runs of more than four lanes, too. */
size_t press_lookup_size(const press_code *code, int many);

/*
 * Decode `count` symbols, counted from 0, from bit *position of a stream on, and move *position behind them; the
 * symbols go to `symbols`, a byte each if wide is 0 (code->n must be at most 256), else uint16_t. `lookups` has
 * press_lookup_size bytes, and need not be filled.
 */
press_status press_decode_run(const uint8_t *stream, size_t size, uint64_t *position, const press_code *code,
                              void *lookups, size_t lookups_size, size_t count, int wide, void *symbols);

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

/* Where a stream is written: bits from `position` on; the bits before it are there, what comes after is overwritten. */
typedef struct press_writer {
    uint8_t *data;
    size_t capacity;    /* bytes */
    uint64_t position;  /* bits */
} press_writer;

/*
 * A code ready to write: codeword (first bit lowest) in the low 16 bits, its length above, for each of n symbols;
 * aligned as for uint32_t.
 */
typedef struct press_codewords {
    int32_t lowest;
    uint32_t n;
    const uint32_t *words;
    int silent;         /* its runs take no bits */
} press_codewords;

/* Fill `words`, n of them, from codeword lengths of a byte each. */
void press_make_codewords(const uint8_t *lengths, size_t n, uint32_t *words);

/*
 * Levels of the `count` elements from `start` on: codes and support are theirs. support may be NULL without
 * PRESS_SUPPORT. `centres`: one code, or one for each channel (n_centres).
 */
void press_levels(const uint8_t *codes, const uint8_t *support, int is_signed, const int16_t *centres,
                  size_t n_centres, size_t inner, size_t start, size_t count, int16_t *levels);

/* Add to counts[level + 256], 513 of them. Levels must lie in -256 .. 256, here and below. */
void press_count_levels(const int16_t *levels, size_t count, uint64_t *counts);

/* Add to counts[(g - 1) * 256 + symbol] for every gap width g = 1 .. 8. */
void press_count_gaps(const int16_t *levels, size_t count, uint64_t *counts);

/*
 * Add to masks[mask], 2^taps of them, and to counts[context * 513 + level + 256], 513 * contexts of them. Kernels, the
 * last one filled up, of 1 <= width <= taps <= 9.
 */
void press_count_kernels(const int16_t *levels, size_t count, unsigned taps, unsigned width, unsigned contexts,
                         uint64_t *masks, uint64_t *counts);

/*
 * Add to signs[context * r + symbol] and to groups[context * g + symbol]: r = 3^width symbols of rows in r / 2 + 2
 * contexts, and g = magnitudes^grouped of groups in 7. parameters: taps, width, largest and small magnitude, magnitudes
 * in a symbol, as in the file; no level may be larger. PRESS_BAD_ARGUMENT: they are not defined.
 */
press_status press_count_sign_rows(const int16_t *levels, size_t count, const uint8_t *parameters, uint64_t *signs,
                                   uint64_t *groups);

/* Upper bound of the bytes that a slab of `count` levels takes in any of the Huffman encodings. */
#define PRESS_SLAB_BYTES(count) (5 * (size_t)(count) + ((size_t)(count) >> 6) + 256)

/*
 * Append one run; PRESS_SMALL_BUFFER, PRESS_BAD_CODE (a level without a codeword). press_write_run takes levels (or any
 * numbers that the code counts from `lowest` on), press_write_bytes symbols from 0 on.
 */
press_status press_write_run(press_writer *writer, const press_codewords *code, const int16_t *levels, size_t count);
press_status press_write_symbols(press_writer *writer, const press_codewords *code, const uint8_t *symbols,
                                 size_t count);

/*
 * Append one slab of PRESS_BITMAP, of PRESS_CSR with gaps of gap_bits, of PRESS_KERNEL_MASKS, of PRESS_SIGN_ROWS
 * (parameters as press_count_sign_rows has them, r / 2 + 2 codes of signs and then 7 of magnitudes). A slab of
 * PRESS_HUFFMAN is one run. Scratch: PRESS_SLAB_SCRATCH(count) bytes, aligned as for int16_t.
 */
#define PRESS_SLAB_SCRATCH(count) (6 * (size_t)(count) + 4)
press_status press_write_bitmap(press_writer *writer, const press_codewords *code, const int16_t *levels,
                                size_t count, void *scratch);
press_status press_write_gaps(press_writer *writer, unsigned gap_bits, const press_codewords *gaps,
                              const press_codewords *code, const int16_t *levels, size_t count, void *scratch);
press_status press_write_kernels(press_writer *writer, unsigned taps, unsigned width, unsigned contexts,
                                 const press_codewords *masks, const press_codewords *codes, const int16_t *levels,
                                 size_t count, void *scratch);
press_status press_write_sign_rows(press_writer *writer, const uint8_t *parameters, const press_codewords *codes,
                                   const int16_t *levels, size_t count, void *scratch);

/* Append `count` levels, less `lowest`, in `bits` bits each. */
press_status press_write_packed(press_writer *writer, int lowest, unsigned bits, const int16_t *levels, size_t count);

/*
 * Split values (PRESS_FLOAT, PRESS_FLOAT16, PRESS_BFLOAT16_TYPE, PRESS_DOUBLE; `values` as in memory). What is found of
 * all elements that are not +0 is added to: exponents from lowest (at first UINT_MAX) to highest, the bits that occur in
 * mantissas, and how many elements these are.
 */
typedef struct press_float_range {
    unsigned lowest, highest;
    uint64_t mantissas;
    uint64_t stored;
} press_float_range;

void press_scan_floats(const uint8_t *values, unsigned type, size_t count, press_float_range *range);

/* A level for each: 0 for +0, else the exponent, counted from 1 for `exponent` on, under the sign. */
void press_float_levels(const uint8_t *values, unsigned type, unsigned exponent, size_t count, int16_t *levels);

/*
 * The highest raw_bits of the mantissa of all that are not +0, one behind the other; returns the bytes. Room for
 * PRESS_MANTISSA_BYTES is needed.
 */
#define PRESS_MANTISSA_BYTES(stored, raw_bits) ((size_t)(((uint64_t)(stored) * (raw_bits) + 7) / 8) + 8)
size_t press_write_mantissas(const uint8_t *values, unsigned type, unsigned raw_bits, size_t count, uint8_t *to);

/* Add to counts[256 * plane + byte] for each byte of elements of `width` bytes, in their order in memory. */
void press_count_planes(const uint8_t *values, size_t width, size_t count, uint64_t *counts);

/* ---- Mixed contexts --------------------------------------------------------------------------------------------- */

/* Bytes of working memory, aligned as for uint64_t, for streams of rows x inputs x taps levels. */
size_t press_mixed_work(size_t rows, size_t inputs, size_t taps, int linked);

/* More levels in one stream are PRESS_BAD_ARGUMENT: the format has at most 2^20 in one. */
#define PRESS_MIXED_LEVELS ((size_t)1 << 22)

/* Upper bound of the bytes of a stream. */
#define PRESS_MIXED_BYTES(count) (24 * (size_t)(count) + 8)

/*
 * Undo press_mixed_encode: levels of a stream of rows x inputs x taps. kernel_width is at least 1; levels outside
 * lowest .. highest (at most -256 .. 256) are refused. linked: whether contexts are linked ones. *end, if asked for: the
 * byte where the levels end, less those that the decoder holds.
 */
press_status press_mixed_decode(press_mixing *mixing, const uint8_t *stream, size_t size, size_t rows, size_t inputs,
                                size_t taps, size_t kernel_width, int lowest, int highest, int linked, void *work,
                                int16_t *levels, size_t *end);

/* Write a stream; *size: how many bytes it has. */
press_status press_mixed_encode(press_mixing *mixing, const int16_t *levels, size_t rows, size_t inputs, size_t taps,
                                size_t kernel_width, int lowest, int highest, int linked, void *work, uint8_t *stream,
                                size_t capacity, size_t *size);

#ifdef __cplusplus
}
#endif

#endif
