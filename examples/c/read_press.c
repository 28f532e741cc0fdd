/* What a program needs to read a .press file: list its tensors, write the values of one, or check all.
 *
 *     read_press FILE                every tensor: type, shape, encoding, stored bytes, CRC-32 of its values
 *     read_press FILE --tensor NAME  the values of one tensor to standard output: little-endian, row-major
 *     read_press FILE --graph        the ONNX graph without weights to standard output
 *
 * Exit status: 0, 1 for a file that cannot be read or trusted, 2 for wrong arguments.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "press_reader.h"

static int fail(const char *path, const char *what, const char *reason)
{
    fprintf(stderr, "%s: %s%s%s\n", path, what, *what ? ": " : "", reason);
    return 1;
}

/* Memory of at least one byte, or the end of the program. */
static void *room(size_t size)
{
    void *memory = malloc(size ? size : 1);

    if (!memory) {
        fprintf(stderr, "out of memory: %lu bytes more are needed\n", (unsigned long)size);
        exit(1);
    }
    return memory;
}

/* The whole file, or NULL. A system with virtual memory would rather map it. */
static uint8_t *read_bytes(const char *path, size_t *size)
{
    FILE *stream = fopen(path, "rb");
    uint8_t *bytes = NULL;
    long length;

    if (stream && fseek(stream, 0, SEEK_END) == 0 && (length = ftell(stream)) >= 0 && fseek(stream, 0, SEEK_SET) == 0) {
        *size = (size_t)length;
        bytes = room(*size);
        if (fread(bytes, 1, *size, stream) != *size) {
            free(bytes);
            bytes = NULL;
        }
    }
    if (stream) {
        fclose(stream);
    }
    return bytes;
}

/* Values lie in this machine's byte order: turn them into little-endian ones. */
static void make_little_endian(uint8_t *values, size_t size, size_t item_size)
{
    const uint16_t one = 1;
    size_t k, j;

    if (*(const uint8_t *)&one == 1) {
        return;
    }
    for (k = 0; k < size; k += item_size) {
        for (j = 0; j < item_size / 2; j++) {
            uint8_t byte = values[k + j];
            values[k + j] = values[k + item_size - 1 - j];
            values[k + item_size - 1 - j] = byte;
        }
    }
}

/* As Python's zlib.crc32. */
static uint32_t crc32(const uint8_t *bytes, size_t size)
{
    uint32_t crc = UINT32_MAX;
    size_t k;
    int bit;

    for (k = 0; k < size; k++) {
        crc ^= bytes[k];
        for (bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    }
    return ~crc;
}

static void print_line(const press_entry *entry, const uint8_t *values)
{
    static const char *const types[] = {"?",        "float32",      "uint8",          "int8",       "uint16",
                                        "int16",    "int32",        "int64",          "?",          "bool",
                                        "float16",  "float64",      "uint32",         "uint64",     "?",
                                        "?",        "bfloat16",     "float8e4m3fn",   "float8e4m3fnuz", "float8e5m2",
                                        "float8e5m2fnuz", "uint4",  "int4",           "float4e2m1", "float8e8m0",
                                        "uint2",    "int2"};
    static const char *const encodings[] = {"raw",           "packed 1.0",     "huffman 1.0", "csr+huffman 1.0",
                                            "byte planes",   "packed",         "huffman",     "csr+huffman",
                                            "bitmap+huffman", "kernel masks+huffman", "mixed contexts", "float16",
                                            "bfloat16",      "coded planes", "split values", "split, mixed contexts",
                                            "any bits", "sign rows+huffman", "lzma"};
    unsigned k;

    printf("%.*s  %s (", (int)entry->name_size, entry->name, types[entry->tensor.type]);
    for (k = 0; k < entry->tensor.n_dims; k++) {
        printf("%s%lu", k ? ", " : "", (unsigned long)entry->tensor.dims[k]);
    }
    printf(")  %s, %lu bytes  crc32 %08lx\n", encodings[entry->tensor.encoding], (unsigned long)entry->tensor.blob_size,
           (unsigned long)crc32(values, entry->values_size));
}

/* Reads all tensors, as a model is whole or of no use; prints a line for each, or writes the one that is `wanted`. */
static int show_tensors(press_file *file, const char *path, const char *wanted)
{
    press_mixing *mixing = room(sizeof *mixing);
    int is_found = 0;
    uint32_t k;

    press_file_mixing(file, mixing);
    for (k = 0; k < file->n_tensors; k++) {
        press_entry entry;
        press_status status = press_file_entry(file, k, &entry);
        size_t scratch_size = 0;
        uint8_t *scratch, *values;

        if (status == PRESS_OK) {
            status = press_file_scratch(&entry, &scratch_size);
        }
        scratch = room(scratch_size);
        values = room(entry.values_size);
        if (status == PRESS_OK) {
            status = press_file_values(file, &entry, scratch, scratch_size, values, entry.values_size);
        }

        if (status == PRESS_OK) {
            make_little_endian(values, entry.values_size, press_type_size(entry.tensor.type));
            if (!wanted) {
                print_line(&entry, values);
            } else if (strlen(wanted) == entry.name_size && memcmp(wanted, entry.name, entry.name_size) == 0) {
                fwrite(values, 1, entry.values_size, stdout);
                is_found = 1;
            }
        } else {
            fprintf(stderr, "%s: tensor %.*s: %s\n", path, (int)entry.name_size, entry.name, press_message(status));
        }
        free(values);
        free(scratch);
        if (status != PRESS_OK) {
            free(mixing);
            return 1;
        }
    }
    free(mixing);

    if (wanted && !is_found) {
        return fail(path, wanted, "there is no tensor of this name; without --tensor all are listed");
    }
    return 0;
}

static int show_graph(const press_file *file, const char *path, int quiet)
{
    uint8_t *graph = room(file->graph_size);
    press_status status = press_file_graph(file, graph, file->graph_size);

    if (status == PRESS_OK && !quiet) {
        fwrite(graph, 1, file->graph_size, stdout);
    }
    free(graph);
    return status == PRESS_OK ? 0 : fail(path, "graph", press_message(status));
}

int main(int n_arguments, char **arguments)
{
    int wants_graph = n_arguments == 3 && strcmp(arguments[2], "--graph") == 0;
    const char *wanted = n_arguments == 4 && strcmp(arguments[2], "--tensor") == 0 ? arguments[3] : NULL;
    const char *path;
    press_status status;
    press_file file;
    uint8_t *bytes, *memory;
    size_t size = 0, memory_size;
    int result;

    if (n_arguments != 2 && !wants_graph && !wanted) {
        fprintf(stderr, "usage: read_press FILE [--tensor NAME | --graph]\n");
        return 2;
    }
    path = arguments[1];
    bytes = read_bytes(path, &size);
    if (!bytes) {
        return fail(path, "", "cannot be read");
    }

    status = press_file_open(&file, bytes, size);
    if (status != PRESS_OK) {
        free(bytes);
        return fail(path, "", press_message(status));
    }
    memory_size = press_file_memory(&file);
    memory = room(memory_size);
    status = press_file_directory(&file, memory, memory_size, PRESS_MAX_DECODED);

    if (status != PRESS_OK) {
        result = fail(path, "directory", press_message(status));
    } else {
        result = show_graph(&file, path, !wants_graph);
        if (result == 0 && !wants_graph) {
            result = show_tensors(&file, path, wanted);
        }
    }
    free(memory);
    free(bytes);
    if (fflush(stdout) != 0) {
        result = fail(path, "", "standard output cannot be written");
    }
    return result;
}
