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
