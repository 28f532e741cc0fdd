/* The outermost layer of a file: header, checksum, chunks. FORMAT.md, "File" and "Chunks". */

#include "press_parts.h"

enum {
    HEADER_BYTES = 56,
    DIGEST_AT = 24,
    CHUNK_HEADER_BYTES = 12,
    MAX_CHUNKS = 64,
    MAX_INFLATED = 8 << 20, /* graph and directory, each, before they were compressed */
    MAX_TABLES = 1 << 20 /* likewise */
};

typedef struct {
    const uint8_t *bytes; /* null where there is none */
    size_t size;
} chunk;

enum { GRPH, TDIR, META, TABL, TABZ, DATA, N_KINDS };

static const uint8_t kinds[N_KINDS][4] = {{'G', 'R', 'P', 'H'}, {'T', 'D', 'I', 'R'}, {'M', 'E', 'T', 'A'},
                                          {'T', 'A', 'B', 'L'}, {'T', 'A', 'B', 'Z'}, {'D', 'A', 'T', 'A'}};

uint64_t press_integer(const uint8_t *at, unsigned n_bytes)
{
    uint64_t value = 0;

    while (n_bytes-- > 0) {
        value = value << 8 | at[n_bytes];
    }
    return value;
}

static int are_same(const uint8_t *one, const uint8_t *two, size_t n)
{
    while (n > 0 && one[n - 1] == two[n - 1]) {
        n--;
    }
    return n == 0;
}

/* SHA-256 of the whole file without the 32 bytes that hold it. */
static press_status check_digest(const uint8_t *bytes, size_t n_bytes)
{
    press_sha256 hash;
    uint8_t digest[32];

    press_sha256_start(&hash);
    press_sha256_add(&hash, bytes, DIGEST_AT);
    press_sha256_add(&hash, bytes + HEADER_BYTES, n_bytes - HEADER_BYTES);
    press_sha256_finish(&hash, digest);

    return are_same(digest, bytes + DIGEST_AT, sizeof digest) ? PRESS_OK : PRESS_CHANGED;
}

static press_status check_header(const uint8_t *bytes, size_t n_bytes)
{
    static const uint8_t magic[8] = {0x89, 'P', 'R', 'E', 'S', 'S', '\r', '\n'};

    if (n_bytes < sizeof magic || !are_same(bytes, magic, sizeof magic)) {
        return PRESS_NO_PRESS_FILE;
    }
    if (n_bytes < HEADER_BYTES) {
        return PRESS_WRONG_SIZE;
    }
    if (press_integer(bytes + 8, 2) != 1) {
        return PRESS_NEWER;
    }
    if (press_integer(bytes + 16, 8) != n_bytes) {
        return PRESS_WRONG_SIZE;
    }

    return PRESS_CHECKS_SUMS ? check_digest(bytes, n_bytes) : PRESS_OK;
}

/* Which of the known kinds a chunk is, or N_KINDS for one to skip. */
static press_status kind_of(const uint8_t *name, unsigned *kind)
{
    unsigned k;

    for (*kind = 0; *kind < N_KINDS; ++*kind) {
        if (are_same(name, kinds[*kind], 4)) {
            return PRESS_OK;
        }
    }

    for (k = 0; k < 4; k++) {
        unsigned letter = name[k] | 32u;
        if (letter < 'a' || letter > 'z') {
            return PRESS_BAD_CHUNKS;
        }
    }
    /* a small first letter marks what a reader may skip */
    return name[0] & 32 ? PRESS_OK : PRESS_NEWER;
}

static press_status find_chunks(const uint8_t *bytes, size_t n_bytes, chunk *chunks)
{
    uint64_t n_chunks = press_integer(bytes + 12, 4);
    size_t at = HEADER_BYTES;

    if (n_chunks > MAX_CHUNKS) {
        return PRESS_BAD_CHUNKS;
    }

    for (; n_chunks > 0; n_chunks--) {
        press_status status;
        uint64_t size;
        unsigned kind;

        if (n_bytes - at < CHUNK_HEADER_BYTES) {
            return PRESS_BAD_CHUNKS;
        }
        size = press_integer(bytes + at + 4, 8);
        status = kind_of(bytes + at, &kind);
        at += CHUNK_HEADER_BYTES;
        if (status != PRESS_OK) {
            return status;
        }
        if (size > n_bytes - at || (kind < N_KINDS && chunks[kind].bytes)) {
            return PRESS_BAD_CHUNKS;
        }

        if (kind < N_KINDS) {
            chunks[kind].bytes = bytes + at;
            chunks[kind].size = (size_t)size;
        }
        at += (size_t)size;
    }

    if (at != n_bytes || !chunks[GRPH].bytes != !chunks[TDIR].bytes || !chunks[GRPH].bytes == !chunks[META].bytes ||
        !chunks[DATA].bytes || (chunks[TABL].bytes && chunks[TABZ].bytes)) {
        return PRESS_BAD_CHUNKS;
    }
    return PRESS_OK;
}

/* The next size that a compressed chunk declares; the chunk begins behind it from then on. */
static int take_size(chunk *from, size_t most, size_t *size)
{
    if (from->size < 4 || press_integer(from->bytes, 4) > most) {
        return 0;
    }
    *size = (size_t)press_integer(from->bytes, 4);
    from->bytes += 4;
    from->size -= 4;
    return 1;
}

/* Where graph and directory are, and how large they will be. */
static int take_streams(press_file *file, chunk *chunks)
{
    chunk *graph = &chunks[GRPH], *directory = &chunks[TDIR];

    file->is_joint = chunks[META].bytes != NULL;
    if (file->is_joint) {
        graph = directory = &chunks[META];
    }
    if (!take_size(directory, MAX_INFLATED, &file->directory_size) ||
        !take_size(graph, MAX_INFLATED, &file->graph_size)) {
        return 0;
    }
    file->graph_stream = graph->bytes;
    file->graph_stream_size = graph->size;
    file->directory_stream = directory->bytes;
    file->directory_stream_size = directory->size;
    return 1;
}

/* Shared code tables: opened where they lie, or noted to be decompressed with the directory. */
static press_status take_tables(press_file *file, chunk *chunks)
{
    chunk *squeezed = &chunks[TABZ];

    if (chunks[TABL].size > MAX_TABLES ||
        (squeezed->bytes && !take_size(squeezed, MAX_TABLES, &file->tables_size))) {
        return PRESS_BAD_CHUNKS;
    }
    file->tables_stream = squeezed->bytes;
    file->tables_stream_size = squeezed->size;

    return chunks[TABL].bytes ? press_shared_open(&file->shared, chunks[TABL].bytes, chunks[TABL].size) : PRESS_OK;
}

press_status press_file_open(press_file *file, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    chunk chunks[N_KINDS];
    press_status status;

    memset(file, 0, sizeof *file);
    memset(chunks, 0, sizeof chunks);
    status = check_header(bytes, size);
    if (status == PRESS_OK) {
        status = find_chunks(bytes, size, chunks);
    }
    if (status != PRESS_OK) {
        return status;
    }

    if (!take_streams(file, chunks)) {
        return PRESS_BAD_CHUNKS;
    }

    file->minor_version = (uint16_t)press_integer(bytes + 10, 2);
    file->blobs = chunks[DATA].bytes;
    file->blobs_size = chunks[DATA].size;

    return take_tables(file, chunks);
}

press_status press_file_graph(const press_file *file, void *graph, size_t graph_size)
{
    press_status status;

    if (graph_size < file->graph_size) {
        return PRESS_SMALL_BUFFER;
    }
    if (!file->is_joint) {
        status = press_inflate(file->graph_stream, file->graph_stream_size, graph, file->graph_size);
    } else if (file->directory) {
        status = press_unlzma(file->graph_stream, file->graph_stream_size, 0, file->probabilities, file->directory,
                              file->directory_size, graph, file->graph_size, 1);
    } else {
        status = PRESS_BAD_ARGUMENT;
    }
    return status == PRESS_OK ? press_check_graph(graph, file->graph_size) : status;
}
