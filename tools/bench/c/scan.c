/* Find and clear every set bit; out: how many, and the sum of their positions. */
#include "bits.h"

void scan(u64 *map, u64 size, u64 *out)
{
    u64 found = 0, total = 0;

    for (u64 page = find_next_bit(map, size, 0); page < size; page = find_next_bit(map, size, page + 1)) {
        map[page / 64] &= ~(1ull << (page % 64));
        found++;
        total += page;
    }
    out[0] = found;
    out[1] = total;
}

/* Only read the map, which is what no search can be faster than; out: its sum, twice. */
void read_all(const u64 *map, u64 words, u64 *out)
{
    u64 total = 0;

    for (u64 i = 0; i < words; i++) {
        total += map[i];
    }
    out[0] = out[1] = total;
}
