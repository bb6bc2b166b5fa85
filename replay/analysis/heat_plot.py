"""The picture of a trace: writes by address and time, with the rate above and the addresses' shares beside it.

Writes of a cell are coloured on a logarithmic scale by a map that colour-blind readers and grey printers can read
(viridis, light is few); a cell without a write is white.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from replay.errors import UsageError
from replay.units import format_bytes, format_duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from replay.describing.heat import Heat

ADDRESSES = ("gib", "page")
COLOUR, EMPTY = "#3b528b", "white"
_SCALES_S = ((1e-6, "us"), (1e-3, "ms"), (1.0, "s"))
_NAMED_SHARE, _LINED_SHARE = 0.03, 0.002


def draw(heat: Heat, *, address: str = "gib") -> Figure:
    """A figure of 10 x 6 inches. address: what the vertical axis counts, gib or page. Raises UsageError."""
    try:
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure as NewFigure
    except ImportError:
        raise UsageError("plots need matplotlib: pip install 'dirtyreplay[plots]'") from None
    if address not in ADDRESSES:
        raise UsageError(f"the vertical axis counts {' or '.join(ADDRESSES)}, not {address!r}")
    figure = NewFigure(figsize=(10, 6), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 0.14, 0.025), height_ratios=(0.2, 1))
    main = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=main)
    beside = figure.add_subplot(grid[1, 1], sharey=main)
    scale_s, unit_s = _time_unit(heat.to_ns)
    extent = (heat.from_ns / 1e9 / scale_s, heat.to_ns / 1e9 / scale_s, *_addresses(heat, address))
    cells = heat.cells.astype(np.float64)
    most = max(2.0, float(cells.max()))
    image = main.imshow(
        np.ma.masked_equal(cells, 0), aspect="auto", origin="lower", extent=extent, interpolation="nearest",
        norm=LogNorm(vmin=1, vmax=most), cmap=_colours(),
    )  # fmt: skip
    main.set_facecolor(EMPTY)
    main.set_xlabel(f"guest time ({unit_s})")
    main.set_ylabel("page" if address == "page" else "guest memory (GiB)")
    if address == "page":
        main.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _blocks(main, heat, extent)
    _rate(above, heat, extent)
    _shares(beside, heat, extent)
    cell = f"{format_duration((heat.to_ns - heat.from_ns) / cells.shape[1])} x {_cell_size(heat)}"
    figure.colorbar(image, cax=figure.add_subplot(grid[1, 2]), label=f"writes in a cell of {cell}")
    figure.suptitle("\n".join(textwrap.wrap(heat.title, 100)), fontsize="medium", x=0.01, ha="left")
    return figure


def _colours() -> Any:
    """viridis from light (few) to dark (many), without its lightest end, which would vanish on white."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.12, 1, 256)))


def _time_unit(to_ns: int) -> tuple[float, str]:
    """The unit of the time axis: its length in s, and its name."""
    return next(((scale, name) for scale, name in _SCALES_S if to_ns / 1e9 < 1000 * scale), _SCALES_S[-1])


def _addresses(heat: Heat, address: str) -> tuple[float, float]:
    scale = 1.0 if address == "page" else heat.page_size / (1 << 30)
    return heat.first_page * scale, heat.end_page * scale


def _cell_size(heat: Heat) -> str:
    pages = (heat.end_page - heat.first_page) / heat.cells.shape[0]
    return "1 page" if pages == 1 else format_bytes(round(pages * heat.page_size / 1024) * 1024)


def _blocks(axes: Any, heat: Heat, extent: tuple[float, ...]) -> None:
    """Lines where RAM blocks begin, and the names of those that are large enough to be read."""
    shown = [b for b in heat.ram_blocks if b.first_page < heat.end_page and b.first_page + b.n_pages > heat.first_page]
    large = [b for b in shown if b.n_pages >= _NAMED_SHARE * (heat.end_page - heat.first_page)]
    low, high = extent[2:]
    for block in shown:
        edges = np.clip([block.first_page, block.first_page + block.n_pages], heat.first_page, heat.end_page)
        share = (edges[1] - edges[0]) / (heat.end_page - heat.first_page)
        place = low + (high - low) * (edges - heat.first_page) / (heat.end_page - heat.first_page)
        if share >= _LINED_SHARE and place[0] > low:
            axes.axhline(place[0], color="0.5", linewidth=0.6, linestyle=":")
        if block in large and len(large) > 1:
            axes.annotate(
                block.name, (1, place[1]), xycoords=("axes fraction", "data"), xytext=(-4, -3),
                textcoords="offset points", ha="right", va="top", fontsize="small", color="0.35",
            )  # fmt: skip


def _rate(axes: Any, heat: Heat, extent: tuple[float, ...]) -> None:
    """Writes a second over time, of the pages shown."""
    counts = heat.cells.sum(axis=0).astype(np.float64)
    rate = counts / ((heat.to_ns - heat.from_ns) / 1e9 / counts.size)
    edges = np.linspace(extent[0], extent[1], counts.size + 1)
    axes.stairs(rate, edges, fill=True, color=COLOUR, alpha=0.8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("writes/s")
    axes.yaxis.set_major_formatter(lambda value, _: short_number(value))
    axes.tick_params(labelbottom=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.locator_params(axis="y", nbins=3)


def _shares(axes: Any, heat: Heat, extent: tuple[float, ...]) -> None:
    """Writes by address over all of the time shown, on a logarithmic scale."""
    counts = heat.cells.sum(axis=1).astype(np.float64)
    axes.stairs(counts, np.linspace(extent[2], extent[3], counts.size + 1), orientation="horizontal", fill=True,
                color=COLOUR, alpha=0.8, baseline=0.5)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(0.5, max(10.0, float(counts.max()) * 1.5))
    axes.set_xlabel("writes")
    axes.tick_params(labelleft=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(extent[2], extent[3])


def short_number(value: float) -> str:
    """A figure of an axis: 150k, 2M."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:g}{letter}"
    return f"{value:g}"
