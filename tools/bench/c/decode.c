/* Positions of all set bits, ascending; out: how many. */
#include "bits.h"

void decode(const u64 *map, u64 words, uint32_t *pages, u64 *out)
{
    u64 found = 0;

    for (u64 i = 0; i < words; i++) {
        for (u64 bits = map[i]; bits; bits &= bits - 1) {
            pages[found++] = i * 64 + __builtin_ctzll(bits);
        }
    }
    out[0] = found;
}

/* The same through a buffer that is used again when a word may not fit; out: how many, and the last of them. */
void decode_through(const u64 *map, u64 words, uint32_t *pages, u64 size, u64 *out)
{
    u64 found = 0, place = 0;

    out[1] = 0;
    for (u64 i = 0; i < words; i++) {
        if (place + 64 > size) {
            out[1] = pages[place - 1];
            found += place;
            place = 0;
        }
        for (u64 bits = map[i]; bits; bits &= bits - 1) {
            pages[place++] = i * 64 + __builtin_ctzll(bits);
        }
    }
    if (place) {
        out[1] = pages[place - 1];
    }
    out[0] = found + place;
}
