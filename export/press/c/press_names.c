/* Text: UTF-8, and which characters are printable. */

#include "press_parts.h"

#include "press_printable.h"

/* The character at `*at`, which moves behind it; -1 if the bytes are no UTF-8 (RFC 3629). */
static int32_t take_character(const uint8_t *bytes, size_t n_bytes, size_t *at)
{
    static const int32_t least[4] = {0, 0x80, 0x800, 0x10000};
    uint8_t first = bytes[(*at)++];
    unsigned more = first < 0x80 ? 0 : first < 0xc0 ? 4 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf8 ? 3 : 4;
    int32_t character;
    unsigned k;

    if (more == 4 || more > n_bytes - *at) {
        return -1;
    }

    character = more == 0 ? first : first & (63 >> more);
    for (k = 0; k < more; k++) {
        uint8_t byte = bytes[(*at)++];
        if ((byte & 0xc0) != 0x80) {
            return -1;
        }
        character = character << 6 | (byte & 63);
    }

    if (character < least[more] || character > 0x10ffff || (character >= 0xd800 && character < 0xe000)) {
        return -1;
    }
    return character;
}

/* The table holds lengths of runs: characters that are not printable, printable ones, and so on, from 0. */
static int is_printable(int32_t character)
{
    int32_t end = 0;
    int printable = 0;
    size_t at = 0;

    while (at < sizeof press_printable) {
        int32_t run = 0;
        unsigned shift = 0;
        uint8_t byte;

        do {
            byte = press_printable[at++];
            run |= (int32_t)(byte & 127) << shift;
            shift += 7;
        } while (byte >= 128);
        end += run;
        if (character < end) {
            return printable;
        }
        printable = !printable;
    }
    return 0;
}

int press_is_text(const uint8_t *bytes, size_t n_bytes, int printable)
{
    size_t at = 0;

    while (at < n_bytes) {
        int32_t character = take_character(bytes, n_bytes, &at);
        if (character < 0 || (printable && !is_printable(character))) {
            return 0;
        }
    }
    return 1;
}

static int lower(uint8_t byte) { return byte >= 'A' && byte <= 'Z' ? byte + 'a' - 'A' : byte; }

int press_compare_names(const uint8_t *one, size_t n_one, const uint8_t *two, size_t n_two)
{
    size_t k;

    for (k = 0; k < n_one && k < n_two; k++) {
        int difference = lower(one[k]) - lower(two[k]);
        if (difference != 0) {
            return difference;
        }
    }
    return n_one < n_two ? -1 : n_one > n_two;
}
