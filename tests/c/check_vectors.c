/* Reads vectors that Python wrote, decodes and encodes them, and says which differ: the same on every machine.

       check_vectors FILE

   A vector is a kind (one byte) and fields, each a little-endian u32 length and so many bytes. See
   tests/helpers/c_vectors.py. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "read_whole.h"

enum { MOST_FIELDS = 28, MOST_TABLES = 22 };

typedef struct {
    const uint8_t *bytes;
    size_t size;
} field;

static uint32_t integer(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void *room(size_t size)
{
    void *memory = calloc(size + 8, 1);

    if (!memory) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }
    return memory;
}

static int is(const field *expected, const uint8_t *bytes, size_t size)
{
    return size == expected->size && (size == 0 || memcmp(expected->bytes, bytes, size) == 0);
}

static int16_t *levels_of(const field *from)
{
    int16_t *levels = room(from->size);
    size_t k;

    for (k = 0; k < from->size / 2; k++) {
        levels[k] = (int16_t)(from->bytes[2 * k] | from->bytes[2 * k + 1] << 8);
    }
    return levels;
}

/* A file, and what reading it gives: nothing where it must be refused. */
static int check_file(const field *fields)
{
    size_t most = fields[1].size + (1 << 20), written;
    uint8_t *out = room(most);
    press_status status = read_whole(fields[0].bytes, fields[0].size, 1 << 24, out, most, &written);
    int good = fields[1].size ? status == PRESS_OK && is(&fields[1], out, written) : status != PRESS_OK;

    free(out);
    return good;
}

/* Levels, numbers (taps, width, contexts or those of sign rows or gap width or bits and lowest), tables; and the slab they become. */
static int check_slab(int kind, const field *fields, unsigned n_fields)
{
    press_codewords codes[MOST_TABLES];
    uint32_t *words[MOST_TABLES];
    int16_t *levels = levels_of(&fields[0]);
    const uint8_t *numbers = fields[1].bytes;
    size_t count = fields[0].size / 2, capacity = PRESS_SLAB_BYTES(count);
    press_writer writer = {room(capacity), capacity, 0};
    void *scratch = room(PRESS_SLAB_SCRATCH(count));
    press_status status = PRESS_BAD_ARGUMENT;
    unsigned n_tables = n_fields - 3, k;
    int good;

    for (k = 0; k < n_tables; k++) {
        const field *table = &fields[3 + k]; /* lowest in four bytes, then codeword lengths */
        size_t n = table->size - 4, used = 0, j;

        words[k] = room(4 * n);
        press_make_codewords(table->bytes + 4, n, words[k]);
        for (j = 0; j < n; j++) {
            used += table->bytes[4 + j] != 0;
        }
        codes[k].lowest = (int32_t)integer(table->bytes);
        codes[k].n = (uint32_t)n;
        codes[k].words = words[k];
        codes[k].silent = used <= 1;
    }

    if (kind == 'r') {
        status = press_write_run(&writer, &codes[0], levels, count);
    } else if (kind == 'b') {
        status = press_write_bitmap(&writer, &codes[0], levels, count, scratch);
    } else if (kind == 'g') {
        status = press_write_gaps(&writer, numbers[0], &codes[0], &codes[1], levels, count, scratch);
    } else if (kind == 'k') {
        status = press_write_kernels(&writer, numbers[0], numbers[1], numbers[2], &codes[0], codes + 1, levels, count,
                                     scratch);
    } else if (kind == 's') {
        status = press_write_sign_rows(&writer, numbers, codes, levels, count, scratch);
    } else if (kind == 'p') {
        status = press_write_packed(&writer, (int16_t)(numbers[1] | numbers[2] << 8), numbers[0], levels, count);
    }

    good = status == PRESS_OK && is(&fields[2], writer.data, (size_t)((writer.position + 7) / 8));
    for (k = 0; k < n_tables; k++) {
        free(words[k]);
    }
    free(scratch);
    free(writer.data);
    free(levels);
    return good;
}

/* Levels, and rows, inputs, taps, kernel width, least (less its sign) and largest level and form of a byte each; the stream of mixed contexts. */
static int check_mixed(const field *fields)
{
    const uint8_t *n = fields[1].bytes;
    int16_t *levels = levels_of(&fields[0]);
    size_t capacity = PRESS_MIXED_BYTES(fields[0].size / 2), size = 0;
    press_mixing *mixing = room(sizeof *mixing);
    void *work = room(press_mixed_work(n[0], n[1], n[2], n[6]));
    uint8_t *stream = room(capacity);
    int good;

    press_mixing_start(mixing);
    good = press_mixed_encode(mixing, levels, n[0], n[1], n[2], n[3], -(int)n[4], (int)n[5], n[6], work, stream, capacity,
                              &size) == PRESS_OK &&
           is(&fields[2], stream, size);
    free(stream);
    free(work);
    free(mixing);
    free(levels);
    return good;
}

static int check(int kind, const field *fields, unsigned n_fields)
{
    if (kind == 'f') {
        return check_file(fields);
    }
    return kind == 'm' ? check_mixed(fields) : check_slab(kind, fields, n_fields);
}

static uint8_t *read_bytes(const char *path, size_t *size)
{
    FILE *stream = fopen(path, "rb");
    uint8_t *bytes = room(1 << 25);

    if (!stream) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(2);
    }
    *size = fread(bytes, 1, 1 << 25, stream);
    fclose(stream);
    return bytes;
}

int main(int n_arguments, char **arguments)
{
    unsigned n_vectors = 0, n_wrong = 0;
    size_t size, at = 0;
    uint8_t *bytes;

    if (n_arguments != 2) {
        fprintf(stderr, "usage: check_vectors FILE\n");
        return 2;
    }
    bytes = read_bytes(arguments[1], &size);
    while (at < size) {
        field fields[MOST_FIELDS];
        int kind = bytes[at];
        unsigned n_fields = bytes[at + 1], k;

        at += 2;
        for (k = 0; k < n_fields && k < MOST_FIELDS; k++) {
            fields[k].size = integer(bytes + at);
            fields[k].bytes = bytes + at + 4;
            at += 4 + fields[k].size;
        }
        if (!check(kind, fields, n_fields)) {
            printf("vector %u of kind %c differs\n", n_vectors, kind);
            n_wrong++;
        }
        n_vectors++;
    }
    free(bytes);

    printf("%u vectors, %u differ\n", n_vectors, n_wrong);
    return n_wrong != 0 || n_vectors == 0;
}
