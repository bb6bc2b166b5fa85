/* Searching a bitmap in QEMU's style: the rest of the first word, then clean words four at a time, then one by one. */
#ifndef BENCH_BITS_H
#define BENCH_BITS_H

#include <stdint.h>

typedef uint64_t u64;

static inline u64 find_next_bit(const u64 *map, u64 size, u64 offset)
{
    if (offset >= size) {
        return size;
    }
    u64 index = offset / 64, end = (size + 63) / 64;
    u64 bits = map[index] & (~0ull << (offset % 64));

    if (!bits) {
        index++;
        while (index + 4 <= end && !(map[index] | map[index + 1] | map[index + 2] | map[index + 3])) {
            index += 4;
        }
        while (index < end && !map[index]) {
            index++;
        }
        if (index >= end) {
            return size;
        }
        bits = map[index];
    }
    return index * 64 + __builtin_ctzll(bits);
}

#endif
