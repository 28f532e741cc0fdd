/*
 * press_reader.h: whole .press files (../FORMAT.md) for programs without Python, in freestanding C99.
 *
 * A file is given as bytes: read or mapped into memory, or in flash. Nothing here allocates memory, keeps state of its
 * own or calls a library, but for memcpy and memset; callers give every buffer and ask beforehand how large it must
 * be. Any bytes whatever are read or refused, with a reason; no pointer given needs any alignment but those to
 * structures and those that say so.
 *
 *     press_file file;
 *     press_entry entry;
 *
 *     press_file_open(&file, data, size);                        header, SHA-256, chunks
 *     memory = room for press_file_memory(&file) bytes;
 *     press_file_directory(&file, memory, memory_size, limit);   names, shapes, where everything lies
 *
 *     for (k = 0; k < file.n_tensors; k++) {
 *         press_file_entry(&file, k, &entry);                    what tensor k is
 *         press_file_scratch(&entry, &scratch_size);
 *         press_file_values(&file, &entry, scratch, scratch_size, values, entry.values_size);
 *     }
 *     press_file_graph(&file, graph, file.graph_size);           the network, an ONNX ModelProto
 *
 * Each returns PRESS_OK or what is wrong; see press_status in press.h. A model is whole or of no use: whoever meets an
 * error should drop what came before. Trust no value before press_file_open and press_file_directory have succeeded.
 *
 * What FORMAT.md asks of a reader is all checked, but for one thing: that names stay different after Unicode
 * normalisation and case folding. Here they must differ whatever the case of their ASCII letters. Who makes names of
 * files of them should bear this in mind.
 *
 * Build: the .c files beside this one and press*.c beside press.h, with both folders on the include path, and
 * -ffp-contract=off where the compiler would fuse multiplications and additions by itself. PRESS_NO_MIXED
 * leaves out mixed contexts (10, 15), which effort `max` writes and which need 1 MB of memory. The graph's check
 * needs about 1.5 kB of stack, inflating about 1.2 kB.
 */
#ifndef PRESS_READER_H
#define PRESS_READER_H

#include "press.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Opening ------------------------------------------------------------------------------------------------ */

/*
 * An open file. Read graph_size, n_tensors and minor_version; the rest is the reader's own. The bytes of the file and
 * the memory given must stay where they are while it is in use. Nothing needs to be closed.
 */
typedef struct press_file {
    size_t graph_size;        /* bytes of the graph, inflated */
    uint32_t n_tensors;       /* 0 until press_file_directory */
    uint16_t minor_version;   /* of the format; the major version is 1 */

    uint32_t mixed_until;     /* tensors before this one are what the model of mixed contexts has learned from */
    press_mixing *mixing;
    int is_joint;             /* graph and directory are one stream */
    uint16_t *probabilities;  /* for that, and for the tables */
    const uint8_t *graph_stream, *directory_stream, *directory, *tables_stream, *blobs;
    size_t graph_stream_size, directory_stream_size, directory_size, tables_stream_size, tables_size, blobs_size;
    press_shared shared;
} press_file;

/*
 * Check header, SHA-256, chunks and, unless they are compressed, shared code tables of a whole file. Opens versions 1.0
 * to 1.4, and what a later 1.x adds as far as this reader may skip it.
 *
 * PRESS_NO_PRESS_FILE, PRESS_WRONG_SIZE (truncated, or bytes added), PRESS_NEWER, PRESS_CHANGED, PRESS_BAD_CHUNKS, or
 * what press_shared_open says of the code tables.
 */
press_status press_file_open(press_file *file, const void *data, size_t size);

/*
 * Bytes of memory that press_file_directory needs: the directory, 12 bytes for every tensor, shared code tables that are
 * compressed (at most 1 MiB), 5 kB to decompress it all.
 */
size_t press_file_memory(const press_file *file);

/* What tensors of one file may take together in memory, unless the caller knows better. */
#define PRESS_MAX_DECODED (UINT64_C(2) << 30)

/*
 * Decompress and check the directory, and shared code tables. `memory` belongs to the file from now on. `max_decoded`: how many bytes the values
 * of all tensors may take together; a small file can declare huge tensors.
 *
 * PRESS_SMALL_BUFFER, PRESS_BAD_ZLIB, PRESS_BAD_LZMA, PRESS_BAD_DIRECTORY, PRESS_BAD_NAME, PRESS_TOO_LARGE, or what
 * press_shared_open says of the code tables.
 */
press_status press_file_directory(press_file *file, void *memory, size_t memory_size, uint64_t max_decoded);

/* ---- Tensors ------------------------------------------------------------------------------------------------ */

/* One tensor of the directory. */
typedef struct press_entry {
    uint32_t number;         /* in the order of the file, from 0 */
    const char *name;        /* UTF-8, name_size bytes, NO zero byte behind them */
    size_t name_size;
    size_t elements;
    size_t values_size;      /* bytes of all elements */
    uint32_t crc32;          /* of the stored bytes; 0 in files that have none */
    press_tensor tensor;     /* type, encoding, dims; the stored bytes: tensor.blob_size of them. Of a tensor that is
                                stored as the same as another, those of the other */
} press_entry;

/* Tensor `number` into *entry. PRESS_BAD_ARGUMENT: there are not so many. */
press_status press_file_entry(const press_file *file, uint32_t number, press_entry *entry);

/*
 * Give memory for mixed contexts, and start them anew. Needed for files with tensors of press_is_mixed alone, and before
 * such tensors are read a second time. `mixing` belongs to the file from now on.
 */
void press_file_mixing(press_file *file, press_mixing *mixing);

/*
 * Bytes of scratch memory, aligned as for uint64_t, that reading this tensor needs. One buffer of the largest serves
 * all; it holds nothing between calls. PRESS_BAD_ENCODING: a newer reader is needed.
 */
press_status press_file_scratch(const press_entry *entry, size_t *size);

/*
 * Read a tensor's values, entry->values_size bytes of them: elements of its own type, row-major, in this machine's byte
 * order. `values` is aligned as for that type.
 *
 * Tensors of press_is_mixed must be read in the order of the file, all of them: PRESS_OUT_OF_ORDER. Others may be read in
 * any order. PRESS_CHANGED: the CRC-32 differs.
 */
press_status press_file_values(press_file *file, const press_entry *entry, void *scratch, size_t scratch_size,
                               void *values, size_t values_size);

/* The same as float32, for tensors of PRESS_FLOAT and PRESS_FLOAT16; PRESS_BAD_TYPE for others. */
press_status press_file_floats(press_file *file, const press_entry *entry, void *scratch, size_t scratch_size,
                               float *values, size_t count);

/*
 * Read a quantized tensor (press_is_quantized) as it is stored: entry->elements codes, a byte each; the support, 1 or
 * 0 for each element (may be NULL; left alone where grid->flags lack PRESS_SUPPORT); and the grid that says what they
 * stand for. See press_decode_codes and
 * press_dequantize.
 */
press_status press_file_codes(press_file *file, const press_entry *entry, void *scratch, size_t scratch_size,
                              uint8_t *codes, uint8_t *support, press_grid *grid);

/* ---- The graph ---------------------------------------------------------------------------------------------- */

/*
 * Inflate the graph, file->graph_size bytes, and check that it is a ModelProto that is complete in itself. Add each
 * tensor to graph.initializer under its name to have the whole model.
 *
 * Works in the memory of the directory, which must have been read before (PRESS_BAD_ARGUMENT).
 *
 * PRESS_SMALL_BUFFER, PRESS_BAD_ZLIB, PRESS_BAD_LZMA, PRESS_BAD_GRAPH.
 */
press_status press_file_graph(const press_file *file, void *graph, size_t graph_size);

#ifdef __cplusplus
}
#endif

#endif
