/* One bitmap into another, word by word, clean words left alone. out: words touched, bits carried, bits new. */
#include "bits.h"

void merge(u64 *restrict source, u64 *restrict target, u64 words, u64 *restrict out)
{
    u64 touched = 0, carried = 0, new = 0;

    for (u64 i = 0; i < words; i++) {
        u64 bits = source[i];
        if (bits) {
            u64 old = target[i];
            touched++;
            carried += __builtin_popcountll(bits);
            new += __builtin_popcountll(bits & ~old);
            target[i] = old | bits;
            source[i] = 0;
        }
    }
    out[0] = touched;
    out[1] = carried;
    out[2] = new;
}

void fold(u64 *restrict source, u64 *restrict target, u64 words, u64 keep, u64 *restrict out)
{
    u64 touched = 0, carried = 0;

    for (u64 i = 0; i < words; i++) {
        u64 bits = source[i];
        if (bits) {
            touched++;
            carried += __builtin_popcountll(bits);
            target[i] |= bits;
            if (!keep) {
                source[i] = 0;
            }
        }
    }
    out[0] = touched;
    out[1] = carried;
}

void layers(u64 *restrict l1, u64 *restrict l2, u64 *restrict l3, u64 words, u64 *restrict out)
{
    fold(l1, l2, words, 0, out);
    merge(l2, l3, words, out + 2);
}
