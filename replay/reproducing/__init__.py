"""Published experiments, replayed: scenarios as data, fits by name, cells of published and replayed figures."""
