"""Models that come with the package."""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"


def model_directory(model: str | Path) -> Path:
    """The directory of a model, given as a bundled name or a path.

    Raises:
        FileNotFoundError: it is neither; the message lists the bundled models.
    """
    bundled = CHECKPOINTS / model
    if isinstance(model, str) and Path(model).name == model and bundled.is_dir():
        return bundled
    if Path(model).is_dir():
        return Path(model)
    names = (
        sorted(p.name for p in CHECKPOINTS.iterdir() if p.is_dir()) if CHECKPOINTS.is_dir() else []
    )
    raise FileNotFoundError(
        f"no model {str(model)!r}: neither a directory nor bundled ({', '.join(names) or 'none'})"
    )
