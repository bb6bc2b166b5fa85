"""What was tried where a target is missed, by the beginning of a row's name."""

_CALL = "the difference is the call of a kernel, some 0.5 us, and gone at 96G or where the map does not fit the cache"
_EVENTS = (
    "events in blocks, of which only those that the log would notice are looked at one by one (a third of the time an "
    "event), reads planned ahead and found by their word, kernels looked up once (half of the time between them)"
)

TRIED = {
    "fold 8G": f"looking at eight words at once, whole runs where most are touched; {_CALL}",
    "merge 8G": f"as fold; {_CALL}",
    "fold 96G": "as fold 8G; C reads four words a step here, and both wait for the cache",
    "idle 96G, data: stepping": "states of few arrays, prices as vectors, all of a page's work in one function",
    "busy 96G, against NumPy": (
        f"{_EVENTS}; what is left is 4 ns an event, two random words of maps of 3 MiB, and 10 us of Python for each 51 ms "
        "of the migration; the script is two passes of array code a round"
    ),
    "busy 96G, against plain Python": f"{_EVENTS}; entries of a ring are pages, so that no word is planned at once",
    "replay.run, 1e8": (
        "batches that stay in the cache instead of fresh memory, decoding ahead in a thread by kernels of our own, "
        "streaming instead of 1.4 GB of arrays; what is left is applying the events"
    ),
    "replay run, small": (
        "kernels loaded without setting up a compiler, no polars and no rich; what is left is pyarrow, numba and loading "
        "a dozen kernels"
    ),
    "two threads, busy 96G: batched": (
        "fewer and cheaper calls from Python; what is left is Python between kernels, one thread at a time, and two maps "
        "of each thread in one cache"
    ),
}
