"""What was tried where a target is missed, by the beginning of a row's name."""

TRIED = {
    "busy 96G, against NumPy": (
        "storing only what changes and prefetching in the guest's loop (a third less time an event); what is left is "
        "the map of what the target has, 6 MiB of random access an event that the script does not keep"
    ),
    "busy 96G, against plain Python": "the same; entries of a ring are pages, so that no word is planned at once",
    "replay.run, 1e8": (
        "batches that stay in the cache instead of fresh memory (a third of the time), decoding ahead in a thread, "
        "streaming instead of 1.4 GB of arrays; what is left is applying the events"
    ),
}
