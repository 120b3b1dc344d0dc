"""What a client's words mean, in a message as in a bag: expressions in a string, and a camera's name."""

from collections.abc import Collection


def camera_named(name: str, topics: Collection[str]) -> str:
    """The image topic that a camera's full name means: that name or its compressed topic; "" if none."""
    return next((topic for topic in (name, f"{name}/compressed") if topic in topics), "")


def is_another(name: str, topic: str, topics: Collection[str]) -> bool:
    """Whether `name` is that of another of the image topics' cameras than `topic`, compressed or not."""
    suffix = "/compressed"
    return name in topics and name.removesuffix(suffix) != topic.removesuffix(suffix)


def expressions_in(text: str) -> list[str]:
    """The expressions in a string on `instruction_text`, separated by semicolons."""
    return [words for part in text.split(";") if (words := part.strip())]
