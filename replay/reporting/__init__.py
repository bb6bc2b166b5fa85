"""One HTML file that shows a result or a sweep and needs nothing else; and traces for the Perfetto viewer."""
