"""Loss histograms of the unlearning card."""

import io
from collections.abc import Sequence

from lethe.plots.style import darken


def loss_histograms(series: Sequence[tuple[str, str, str, Sequence[float]]], log10_edges: Sequence[float]) -> str:
    """Draw histograms of the loss as steps over common bins; the first is filled.

    Args:
        series: (legend, colour, line style, percent of the images in each bin) of each histogram.
        log10_edges: log10 of the bin edges in nats, one more than there are bins.

    Returns:
        An SVG element to embed in an HTML page.
    """
    import re

    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 2.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    edges = [10**edge for edge in log10_edges]
    for number, (words, colour, line, percent) in enumerate(series):
        if number == 0:
            axes.stairs(percent, edges, fill=True, color=colour, alpha=0.25, linewidth=0)
        axes.stairs(percent, edges, color=darken(colour), linestyle=line, linewidth=1.8, label=words)
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("loss (nats)")
    axes.set_ylabel("percent of images")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, borderaxespad=0)  # above: so a phone's width does
    image = io.StringIO()
    with rc_context({"svg.hashsalt": "card", "svg.fonttype": "none"}):  # the same numbers, the same bytes; text stays text
        figure.savefig(image, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>", "", image.getvalue(), flags=re.DOTALL)
