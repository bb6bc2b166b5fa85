"""What traces look like: figures, curves, heatmaps, comparisons, and generators fitted to them."""
