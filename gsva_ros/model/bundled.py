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
        FileNotFoundError: it is neither; the message lists the bundled models, or says where a link leads.
    """
    known = bundled()
    if isinstance(model, str) and model in known:
        return known[model]
    if model != "" and Path(model).is_dir():
        return Path(model)
    if Path(model).is_symlink():
        raise FileNotFoundError(
            f"no model {str(model)!r}: a link to {str(Path(model).readlink())!r}, which is no folder "
            "there: copy the model itself (cp -rL)"
        )
    raise FileNotFoundError(
        f"no model {str(model)!r}: neither a directory nor bundled ({', '.join(known) or 'none'})"
    )
