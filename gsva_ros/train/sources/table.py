"""The kinds of sources by name. A new kind needs its own module and a line here."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from pydantic import create_model

from ...errors import InputError, validated
from ..config import Data
from .coco_parts import Paco, PascalPart
from .label_maps import Ade20k, CocoStuff, Mapillary
from .labelled_bag import LabelledBag
from .llava_instruct import LlavaInstruct
from .reason_seg import ReasonSeg
from .refer_seg import ReferSeg
from .rendered import RenderedScenes
from .sample import Source

KINDS: dict[str, Callable[..., Source]] = {
    "bag": LabelledBag,
    "scenes": RenderedScenes,
    "refer_seg": ReferSeg,
    "reason_seg": ReasonSeg,
    "ade20k": Ade20k,
    "coco_stuff": CocoStuff,
    "mapillary": Mapillary,
    "paco": Paco,
    "pascal_part": PascalPart,
    "llava_instruct": LlavaInstruct,
}


def make(data: Data, place: str) -> Source:
    """Create the source that a config describes; `place` identifies it in errors.

    Raises:
        InputError: an unknown kind or option, a missing option, an invalid value, or what the source finds
            wrong.
    """
    if data.kind not in KINDS:
        raise InputError(f"{place}.kind: {data.kind!r} is unknown; there are {', '.join(KINDS)}")
    kind = KINDS[data.kind]
    options = inspect.signature(kind, eval_str=True).parameters
    if unknown := sorted(set(data.options) - set(options)):
        raise InputError(
            f"{place}: {data.kind} has no option {', '.join(unknown)}; it has {', '.join(options)}"
        )
    needed = [n for n, o in options.items() if o.default is o.empty and n not in data.options]
    if needed:
        raise InputError(f"{place}: {data.kind} needs {', '.join(needed)}")
    typed = create_model(data.kind, **{n: (options[n].annotation, ...) for n in data.options})  # type: ignore[call-overload]
    values = validated(typed, data.options, place, "see docs/training.md")
    return kind(**{name: getattr(values, name) for name in data.options})
