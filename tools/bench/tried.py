"""What was tried where a target is missed, by the beginning of a row's name."""

_LOOKS = "looking at eight words at once, whole runs where most are touched"
_EVENTS = (
    "events in blocks, of which only those that the log would notice are looked at one by one (a third of the time an "
    "event), reads planned ahead and found by their word, kernels looked up once (half of the time between them)"
)

TRIED = {
    "fold": f"{_LOOKS}; at 8G it is 0.7 us; the three layers of a sync together are not slower",
    "merge": _LOOKS,
    "ring 65536, uniform": "free-running indices, a mask; what is left changes from run to run (1.06 to 1.13)",
    "verbs": "all verbs inlined, calls that copy only what they use; 1.02 to 1.09 from run to run",
    "idle 96G, data: stepping": "states of few arrays, prices as vectors, all of a page's work in one function",
    "busy 96G, against NumPy": (
        f"{_EVENTS}; what is left is 4 ns an event, random words of 3 MiB maps, and 10 us of Python for each 51 ms of "
        "the migration; the script is two passes of array code a round"
    ),
    "busy 96G, against plain Python": f"{_EVENTS}; entries of a ring are pages, so that no word is planned at once",
    "busy 96G: with progress": "one call for each pass of the loop; 0.97 to 1.05 from run to run",
    "replay.run, 1e8": (
        "batches that stay in the cache instead of fresh memory, decoding ahead in a thread by kernels of our own, "
        "streaming instead of 1.4 GB of arrays, windows of 2^14 to 2^18 events; 15.6 to 18.6 ns in two runs of all "
        "benchmarks, by what else uses the cache that this virtual machine shares"
    ),
    "replay run, small": (
        "kernels loaded without setting up a compiler, no polars and no rich; what is left is pyarrow, numba and "
        "a dozen kernels to load"
    ),
    "two threads, busy 96G: batched": (
        "fewer and cheaper calls from Python; what is left is Python between kernels, one thread at a time, and the "
        "maps of both in one cache"
    ),
}
