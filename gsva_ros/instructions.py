"""What a client's words mean, in a message as in a bag: expressions in a string, and a camera's name."""

from collections.abc import Collection


def camera_named(name: str, topics: Collection[str]) -> str:
    """The image topic that a camera's full name means: that name or its compressed topic; "" if none."""
    return next((topic for topic in (name, f"{name}/compressed") if topic in topics), "")


def meant_by(topic: str, named: set[str], topics: Collection[str]) -> str | None:
    """Which of the names in a file is a camera's: its topic or, if it is the only one, another name of it.

    Args:
        topic: the camera's. named: the names in the file.
        topics: the bag's image topics: the only name is another name of `topic` if it is none of them, or
            the same camera's, compressed or not.

    Returns:
        None if all of them are other cameras', or there are none.
    """
    if topic in named:
        return topic
    if len(named) != 1:
        return None
    (name,), suffix = named, "/compressed"
    another = name in topics and name.removesuffix(suffix) != topic.removesuffix(suffix)
    return None if another else name


def expressions_in(text: str) -> list[str]:
    """The expressions in a string on `instruction_text`, separated by semicolons."""
    return [words for part in text.split(";") if (words := part.strip())]
