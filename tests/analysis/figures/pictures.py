"""What holds of every picture: its text is legible, inside of it, and tick labels do not touch."""

import itertools

from matplotlib.axis import Axis
from matplotlib.text import Text

from analysis.figures.plot import style


def check(fig):
    """Raises AssertionError where text is too small, cut off, or over other tick labels."""
    with style.context():
        fig.canvas.draw()
    axes, gap = fig.findobj(Axis), fig.dpi / 50  # inches between labels
    ticks = {text for axis in axes for text in axis.get_ticklabels(which="both")}
    shown = [text for text in fig.findobj(Text) if text not in ticks and text.get_visible()]
    for axis in axes:
        low, high = sorted(axis.get_view_interval())
        pairs = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False)
        labels = [text for at, text in pairs if low <= at <= high and text.get_text()]
        shown += labels if axis.axes.axison and axis.get_visible() else []
        for one, two in itertools.combinations(labels, 2):
            left, right = (text.get_window_extent().padded(gap / 2, 0) for text in (one, two))
            assert not left.overlaps(right), (one, two)
    for text in shown:
        if text.get_text().strip():
            assert text.get_fontsize() >= 5.5
            box = text.get_window_extent()
            assert box.x0 >= -1 and box.x1 <= fig.bbox.x1 + 1, text
            assert box.y0 >= -1 and box.y1 <= fig.bbox.y1 + 1, text
