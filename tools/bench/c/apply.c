/* Mark the page of every event; out: how many were clean. */
#include "bits.h"

void apply(const uint32_t *pages, u64 count, u64 *dirty, u64 *out)
{
    u64 new = 0;

    for (u64 i = 0; i < count; i++) {
        u64 page = pages[i], bit = 1ull << (page % 64), old = dirty[page / 64];
        new += !(old & bit);
        dirty[page / 64] = old | bit;
    }
    out[0] = new;
}
