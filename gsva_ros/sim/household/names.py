"""Uses, visible parts and stacking of the household world's kinds, with frequencies."""

from __future__ import annotations

#: Parts that may be visible on a thing, with their article.
PARTS = {"handle": "a handle", "lid": "a lid", "label": "a label", "stripes": "stripes"}
#: Uses, with the kinds that serve them and the kinds on which people would disagree.
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
#: By part, the kinds that may show it, and the fraction that do.
PARTED: dict[str, dict[str, float]] = {
    "handle": {
        "pot": 0.88, "teapot": 0.86, "pitcher": 0.84, "pan": 0.79, "bucket": 0.74, "mug": 0.73,
        "vase": 0.2, "spoon": 0.19,
    },
    "lid": {"teapot": 0.96, "jar": 0.75, "pot": 0.57, "bottle": 0.23, "box": 0.17},
    "label": {"book": 0.78, "box": 0.34, "pitcher": 0.2, "teapot": 0.18, "bucket": 0.14},
    "stripes": {
        "screwdriver": 0.36, "hammer": 0.27, "wrench": 0.25, "vase": 0.23, "plate": 0.18,
        "teapot": 0.16, "jar": 0.16, "pitcher": 0.16, "can": 0.1, "mug": 0.08, "ball": 0.08,
    },
}  # fmt: skip
#: By relation, how often a kind stands on or in another thing, and how often another is on or in it.
STACKS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "on": (
        {
            "ball": 0.1, "glass": 0.1, "tape": 0.1, "can": 0.1, "jar": 0.06, "box": 0.05,
            "bottle": 0.05, "cone": 0.03, "vase": 0.03, "bowl": 0.03, "mug": 0.03, "plate": 0.02,
            "bucket": 0.02, "pitcher": 0.02, "book": 0.02,
        },
        {"plate": 0.45, "book": 0.3, "can": 0.1, "box": 0.1, "jar": 0.05},
    ),
    "in": (
        {
            "glass": 0.1, "screwdriver": 0.08, "ball": 0.08, "wrench": 0.08, "jar": 0.07,
            "can": 0.06, "spoon": 0.06, "tape": 0.05, "vase": 0.04, "bottle": 0.04, "cone": 0.04,
            "box": 0.04, "mug": 0.04, "bowl": 0.03, "pitcher": 0.03, "bucket": 0.03,
            "teapot": 0.01, "book": 0.01,
        },
        {"pan": 0.35, "bowl": 0.2, "bucket": 0.15, "pot": 0.15, "mug": 0.05, "glass": 0.03},
    ),
}  # fmt: skip
