"""Sweeps: a plan of replays, run by any executor, durable run by run, as one dataset, the same however it came."""
