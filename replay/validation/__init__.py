"""Predictions held against real migrations: cases, the inputs a prediction may use, the figures it is judged by."""
