"""A schedule of the acceleration as JSON values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from nagcore import schedules

__all__ = ["begun_anew", "config_of", "schedule_of"]


def config_of(schedule: Any) -> dict[str, Any] | None:
    """Return what `schedule_of` makes the schedule again from, its run so far included.

    >>> from nagcore import schedules
    >>> config_of(schedules.Constant(0.5))
    {'schedule': 'Constant', 'mu': 0.5}
    """
    if schedule is None:
        return None
    if type(schedule) is getattr(schedules, type(schedule).__name__, None):
        return schedule.state_dict()
    if hasattr(schedule, "get_config") or not hasattr(schedule, "state_dict"):
        return keras.saving.serialize_keras_object(schedule)
    raise ValueError(
        f"The acceleration is a {type(schedule).__name__}, which keras cannot save. Give it a "
        "get_config() and register it with keras.saving.register_keras_serializable()."
    )


def schedule_of(config: Mapping[str, Any], custom_objects: Any = None) -> Any:
    """Return the schedule that `config_of` described.

    >>> schedule_of({'schedule': 'Warmup', 'mu': 0.8, 'steps': 4, 'start': 0.0})
    Warmup(mu=0.8, steps=4, start=0.0)
    """
    if not isinstance(config, Mapping):  # from_config was called with the schedule itself
        return config
    if "schedule" not in config:
        return keras.saving.deserialize_keras_object(dict(config), custom_objects=custom_objects)
    kind = _kind(config)
    if kind is schedules.AdaptiveRestart:
        made = kind(schedule_of(config["inner"]), smoothing=config["smoothing"])
        made.load_state_dict(config)
        return made
    return kind(**{name: value for name, value in config.items() if name != "schedule"})


def begun_anew(schedule: Any) -> Any:
    """Return the schedule without the run that it remembers; itself where it remembers none.

    >>> from nagcore import schedules
    >>> restart = schedules.AdaptiveRestart(schedules.Nesterov())
    >>> restart.observe(1.0)
    >>> restart(9), begun_anew(restart)(9)
    (0.0, 0.7272727272727273)
    """
    if type(schedule) is not schedules.AdaptiveRestart:
        return schedule
    return schedules.AdaptiveRestart(begun_anew(schedule.inner), smoothing=schedule.smoothing)


def _kind(config: Mapping[str, Any]) -> Any:
    name = config["schedule"]
    kind = getattr(schedules, name, None) if name in schedules.__all__ else None
    if kind is None:
        raise ValueError(
            f"The saved acceleration is a {name!r}; nagcore has {', '.join(schedules.__all__)}."
        )
    return kind
