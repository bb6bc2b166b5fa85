"""What importers share: input streams, books of every line, places of pages, and the way from events to a trace."""
