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
#: By part, the kinds that may show it, and the share of them that do.
PARTED: dict[str, dict[str, float]] = {
    "handle": {
        "mug": 0.8,
        "teapot": 0.8,
        "pitcher": 0.8,
        "pot": 0.8,
        "pan": 0.8,
        "bucket": 0.8,
        "vase": 0.2,
        "spoon": 0.2,
    },
    "lid": {"teapot": 0.95, "bottle": 0.75, "jar": 0.7, "pot": 0.55, "box": 0.25},
    "label": {"book": 0.6, "box": 0.45, "mug": 0.2, "bucket": 0.2, "bottle": 0.15, "can": 0.15},
    "stripes": {
        "screwdriver": 0.4,
        "plate": 0.3,
        "hammer": 0.3,
        "wrench": 0.25,
        "can": 0.2,
        "vase": 0.2,
        "mug": 0.15,
        "bowl": 0.15,
        "jar": 0.15,
        "box": 0.15,
        "ball": 0.15,
    },
}
#: By relation, how often a kind stands on or in another, and how often it holds one.
STACKS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "on": (
        {
            "ball": 0.1,
            "glass": 0.1,
            "tape": 0.1,
            "can": 0.1,
            "jar": 0.06,
            "box": 0.05,
            "bottle": 0.05,
            "cone": 0.03,
            "vase": 0.03,
            "bowl": 0.03,
            "mug": 0.03,
            "plate": 0.02,
            "bucket": 0.02,
            "pitcher": 0.02,
            "book": 0.02,
        },
        {"plate": 0.45, "book": 0.3, "can": 0.1, "box": 0.1, "jar": 0.05},
    ),
    "in": (
        {
            "glass": 0.1,
            "screwdriver": 0.08,
            "ball": 0.08,
            "wrench": 0.08,
            "jar": 0.07,
            "can": 0.06,
            "spoon": 0.06,
            "tape": 0.05,
            "vase": 0.04,
            "bottle": 0.04,
            "cone": 0.04,
            "box": 0.04,
            "mug": 0.04,
            "bowl": 0.03,
            "pitcher": 0.03,
            "bucket": 0.03,
            "teapot": 0.01,
            "book": 0.01,
        },
        {"pan": 0.35, "bowl": 0.2, "bucket": 0.15, "pot": 0.15, "mug": 0.05, "glass": 0.03},
    ),
}
