/* What the files of the reader share. Not for programs that use it. */

#ifndef PRESS_PARTS_H
#define PRESS_PARTS_H

#include <string.h>

#include "press_reader.h"

/* Fuzzers should reach what lies behind the checksums. */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
#define PRESS_CHECKS_SUMS 0
#else
#define PRESS_CHECKS_SUMS 1
#endif

/* An unsigned little-endian integer of up to 8 bytes. */
uint64_t press_integer(const uint8_t *at, unsigned n_bytes);

typedef struct {
    uint32_t state[8];
    uint64_t n_bytes;
    uint8_t block[64];
} press_sha256;

void press_sha256_start(press_sha256 *hash);
void press_sha256_add(press_sha256 *hash, const uint8_t *bytes, size_t n_bytes);
void press_sha256_finish(press_sha256 *hash, uint8_t digest[32]);

uint32_t press_crc32(const uint8_t *bytes, size_t n_bytes);

/* Inflates a zlib stream that must hold exactly `n_out` bytes and be followed by nothing. */
press_status press_inflate(const uint8_t *in, size_t n_in, uint8_t *out, size_t n_out);

/* How many probabilities an LZMA stream of these properties needs. */
size_t press_lzma_probabilities(unsigned properties);

/*
 * Decodes an LZMA stream that goes on after `n_before` bytes, which are known from an earlier call, with `n_out` bytes.
 * is_whole: then it must be at its end, and followed by nothing.
 */
press_status press_unlzma(const uint8_t *in, size_t n_in, unsigned properties, uint16_t *probabilities,
                          const uint8_t *before, size_t n_before, uint8_t *out, size_t n_out, int is_whole);

/* Whether bytes are an ONNX `ModelProto` without initializers and external data. */
press_status press_check_graph(const uint8_t *bytes, size_t n_bytes);

/* Whether bytes are UTF-8; and if `printable`, whether all characters are as FORMAT.md says of names. */
int press_is_text(const uint8_t *bytes, size_t n_bytes, int printable);

/* Negative, 0 or positive, as `one` comes before, equals, or comes after `two`; the case of ASCII letters aside. */
int press_compare_names(const uint8_t *one, size_t n_one, const uint8_t *two, size_t n_two);

#endif
