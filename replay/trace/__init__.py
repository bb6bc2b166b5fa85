"""The trace format: schema, reader, writer, and operations on traces (validate, describe)."""
