"""A cost table as a TOML file, every figure with its source."""

from __future__ import annotations

from pathlib import Path

from replay.errors import UsageError
from replay.migration.costs import Costs


def write(table: Costs, sources: dict[str, str], path: Path) -> None:
    """Write a table that `--costs` reads; `sources` by entry name, "as in NAME" for the others. Raises UsageError."""
    if path.suffix != ".toml":
        raise UsageError(f"{path}: a cost table's name ends in .toml")
    lines = [f'name = "{path.stem}"', f'description = "{table.description}"']
    base = table.name.partition("+")[0]
    sections = (
        ("prices", "ns", table.prices_ps),
        ("fixed", "ns", table.fixed_ps),
        ("bytes", "bytes", table.fixed_bytes),
    )
    for section, unit, values in sections:
        lines += ["", f"[{section}]"]
        for name, value in values.items():
            shown = str(value) if unit == "bytes" else f"{value // 1000}.{value % 1000:03d}"
            source = sources.get(name, f"as in {base}") if section != "bytes" else f"as in {base}"
            lines.append(f'{name} = {{ {unit} = {shown}, source = "{source}" }}')
    try:
        path.write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from None
