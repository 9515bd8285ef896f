"""Colours that figures share."""

GREY, INK = "#767676", "#222222"


def darken(colour: str) -> str:
    """A darker shade of `#rrggbb` for text: thin strokes need more contrast than markers.

    >>> darken("#D55E00")
    '#9f4600'
    """
    return "#" + "".join(f"{int(colour[i : i + 2], 16) * 3 // 4:02x}" for i in (1, 3, 5))
