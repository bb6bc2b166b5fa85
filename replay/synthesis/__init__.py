"""Guests that are generated, not recorded: spellings, mixtures, and traces made of them."""
