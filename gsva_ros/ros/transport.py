"""Fast DDS's transports for a process that publishes images, as launch files set them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: What names a profile file: to Fast DDS 3, and to Fast DDS 2.
PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
#: ROS distributions with Fast DDS 2. Later ones warn of its variable.
FAST_DDS_2 = ("humble", "iron", "jazzy")
#: What confines a process to this machine (Humble; later ones). rmw_fastrtps adds transports for it, and
#: those of a profile, which are not confined, would stand beside them.
CONFINED = {"ROS_LOCALHOST_ONLY": ("1",), "ROS_AUTOMATIC_DISCOVERY_RANGE": ("LOCALHOST", "OFF")}


def profile_variable(given: Mapping[str, str]) -> str:
    """What names a profile file in this environment."""
    return PROFILES[given.get("ROS_DISTRO") in FAST_DDS_2]


def environment(profile: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Variables to start a process with; empty where the user has chosen transports or confined them.

    Args:
        profile: Fast DDS's profile file; other middlewares do not read it.
        given: the environment of now.
    """
    chosen = any(given.get(name) for name in (*PROFILES, "FASTDDS_BUILTIN_TRANSPORTS"))
    if chosen or any(given.get(name) in values for name, values in CONFINED.items()):
        return {}
    return {profile_variable(given): str(profile)}
