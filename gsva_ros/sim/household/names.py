"""What the things of the household world are called, and what they are good for."""

from __future__ import annotations

KINDS = (
    *("mug", "bowl", "box", "ball", "can", "bottle", "plate", "cone", "glass", "jar", "vase"),
    *("pot", "pan", "bucket", "book", "teapot", "pitcher", "spoon", "screwdriver", "hammer"),
    *("wrench", "tape"),
)
COLOURS = (
    *("red", "green", "blue", "yellow", "orange", "purple", "white", "black", "brown", "pink"),
    "grey",
)
#: Parts that a thing may show, and the article that they are named with.
PARTS = {"handle": "a handle", "lid": "a lid", "label": "a label", "stripes": "stripes"}
#: Uses, the kinds that serve them, and kinds about which people would disagree.
USES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "drink from": (("mug", "glass"), ("bottle", "can")),
    "eat from": (("plate", "bowl"), ("pan",)),
    "cook in": (("pot", "pan"), ()),
    "pour from": (("teapot", "pitcher"), ("bottle", "jar")),
    "read": (("book",), ()),
    "turn screws with": (("screwdriver",), ()),
    "hit nails with": (("hammer",), ()),
    "tighten bolts with": (("wrench",), ()),
    "stir soup with": (("spoon",), ()),
    "put flowers in": (("vase",), ("jar", "pitcher")),
    "play with": (("ball",), ()),
    "stick paper with": (("tape",), ()),
}
#: Kinds that show a part, some or all of them.
PARTED: dict[str, tuple[str, ...]] = {
    "handle": ("mug", "pan", "pot", "teapot", "pitcher", "bucket"),
    "lid": ("jar", "pot", "teapot"),
    "label": ("bottle", "can", "jar"),
    "stripes": ("mug", "vase", "bowl", "box", "ball"),
}
#: By relation: kinds that stand on or in another, and kinds that hold them.
STACKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "on": (KINDS, ("book", "box", "plate")),
    "in": (KINDS, ("bowl", "bucket", "pan", "pot", "box", "plate")),
}
