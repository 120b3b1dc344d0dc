"""Models that come with the package."""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"


def bundled() -> dict[str, Path]:
    """The directories of the bundled models, by name."""
    return {p.name: p for p in sorted(CHECKPOINTS.glob("*")) if p.is_dir()}


def model_directory(model: str | Path) -> Path:
    """The directory of a model, given as a bundled name or a path.

    Raises:
        FileNotFoundError: it is neither; the message lists the bundled models.
    """
    known = bundled()
    if isinstance(model, str) and model in known:
        return known[model]
    if model != "" and Path(model).is_dir():
        return Path(model)
    raise FileNotFoundError(
        f"no model {str(model)!r}: neither a directory nor bundled ({', '.join(known) or 'none'})"
    )
