"""Answers made of many replays: advice, the bound that hindsight gives, a fleet at a glance."""
