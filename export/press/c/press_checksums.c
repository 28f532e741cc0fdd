/* SHA-256 (FIPS 180-4) and CRC-32 (RFC 1952), small rather than fast. */

#include "press_parts.h"

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes: FIPS 180-4, section 4.2.2. */
static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotated(uint32_t word, unsigned by) { return word >> by | word << (32 - by); }

void press_sha256_start(press_sha256 *hash)
{
    static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

    memcpy(hash->state, first, sizeof first);
    hash->n_bytes = 0;
}

/* One block of 64 bytes; the schedule is kept as the last 16 words. */
static void take_block(press_sha256 *hash)
{
    uint32_t words[16], s[8];
    unsigned round, k;

    for (k = 0; k < 16; k++) {
        const uint8_t *at = hash->block + 4 * k;
        words[k] = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    }

    memcpy(s, hash->state, sizeof s);
    for (round = 0; round < 64; round++) {
        uint32_t one, two, word = words[round & 15];

        if (round >= 16) {
            uint32_t early = words[(round + 1) & 15], late = words[(round + 14) & 15];
            early = rotated(early, 7) ^ rotated(early, 18) ^ early >> 3;
            late = rotated(late, 17) ^ rotated(late, 19) ^ late >> 10;
            word = words[round & 15] += early + words[(round + 9) & 15] + late;
        }

        one = s[7] + (rotated(s[4], 6) ^ rotated(s[4], 11) ^ rotated(s[4], 25)) +
              ((s[4] & s[5]) ^ (~s[4] & s[6])) + round_constants[round] + word;
        two = (rotated(s[0], 2) ^ rotated(s[0], 13) ^ rotated(s[0], 22)) +
              ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        for (k = 7; k > 0; k--) {
            s[k] = s[k - 1];
        }
        s[4] += one;
        s[0] = one + two;
    }

    for (k = 0; k < 8; k++) {
        hash->state[k] += s[k];
    }
}

void press_sha256_add(press_sha256 *hash, const uint8_t *bytes, size_t n_bytes)
{
    while (n_bytes > 0) {
        size_t held = (size_t)(hash->n_bytes & 63), taken = 64 - held;

        if (taken > n_bytes) {
            taken = n_bytes;
        }
        memcpy(hash->block + held, bytes, taken);
        hash->n_bytes += taken;
        bytes += taken;
        n_bytes -= taken;
        if (held + taken == 64) {
            take_block(hash);
        }
    }
}

void press_sha256_finish(press_sha256 *hash, uint8_t digest[32])
{
    static const uint8_t padding[64] = {0x80};
    uint64_t n_bits = 8 * hash->n_bytes;
    uint8_t length[8];
    unsigned k;

    for (k = 0; k < 8; k++) {
        length[k] = (uint8_t)(n_bits >> (56 - 8 * k));
    }
    press_sha256_add(hash, padding, 1 + (size_t)((119 - (hash->n_bytes & 63)) & 63));
    press_sha256_add(hash, length, sizeof length);

    for (k = 0; k < 32; k++) {
        digest[k] = (uint8_t)(hash->state[k / 4] >> (24 - 8 * (k % 4)));
    }
}

uint32_t press_crc32(const uint8_t *bytes, size_t n_bytes)
{
    /* of the sixteen values of four bits: a table for eight would take a kilobyte */
    static const uint32_t of_nibble[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t crc = 0xffffffff;
    size_t k;

    for (k = 0; k < n_bytes; k++) {
        crc ^= bytes[k];
        crc = crc >> 4 ^ of_nibble[crc & 15];
        crc = crc >> 4 ^ of_nibble[crc & 15];
    }

    return ~crc;
}
