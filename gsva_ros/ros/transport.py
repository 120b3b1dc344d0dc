"""Fast DDS transports for a process that publishes images, as set by the launch files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: Environment variables for the profile file: of Fast DDS 3, and of Fast DDS 2.
PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
#: ROS distributions with Fast DDS 2. Later ones warn about its variable.
FAST_DDS_2 = ("humble", "iron", "jazzy")
#: Variables that confine a process to this machine (Humble; later distributions). rmw_fastrtps then adds
#: transports of its own, and a profile's, which are not confined, would be used as well.
CONFINED = {"ROS_LOCALHOST_ONLY": ("1",), "ROS_AUTOMATIC_DISCOVERY_RANGE": ("LOCALHOST", "OFF")}


def profile_variable(given: Mapping[str, str]) -> str:
    """The variable that names the profile file for the Fast DDS of this environment."""
    return PROFILES[given.get("ROS_DISTRO") in FAST_DDS_2]


def environment(profile: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for a new process; empty if the user has chosen transports or confined them.

    Args:
        profile: Fast DDS's profile file; other middlewares do not read it.
        given: the current environment.
    """
    chosen = any(given.get(name) for name in (*PROFILES, "FASTDDS_BUILTIN_TRANSPORTS"))
    if chosen or any(given.get(name) in values for name, values in CONFINED.items()):
        return {}
    return {profile_variable(given): str(profile)}
