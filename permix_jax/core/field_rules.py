"""What follows from the declarations of the fields: which values are possible, which fields may
change when a run goes on, and which are read. And how parts of the package get theirs.

Imports no JAX, so that a command can ask before its job begins.
"""

import inspect
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from ml_collections import ConfigDict

from permix_jax.core.config_fields import FIELDS, GONE, SECTIONS
from permix_jax.core.declare import Condition, OtherThan
from permix_jax.core.fields import did_you_mean, flat_fields, names_in

# Fields in which a run may go on with another value than it began with, and why its results stay
# the same. None of them is part of what an evaluation or a cached base policy is known by.
CHANGEABLE: dict[str, str] = {name: field.resume for name, field in FIELDS.items() if field.resume}

# Field, or section -> conditions; it is read where one of them holds. Where a field and its section
# are both here, both must be read. A field that is not here is always read. So is a field that its
# own condition asks about: sft.steps decides about the section sft, and about itself it does not.
READ_WHERE: dict[str, Sequence[Condition]] = {
    name: [declared.reads] if isinstance(declared.reads, Mapping) else declared.reads
    for name, declared in (SECTIONS | FIELDS).items()
    if declared.reads
}
_TYPES = {bool: bool, int: Integral, float: Real, str: str}


def valid_value(field: str, value: Any) -> Any:
    """`value`, which the dotted field may have; raises ValueError, with a remedy, where not."""
    default, _, rule, *_ = FIELDS[field]
    if not isinstance(value, _TYPES[type(default)]):
        remedy = f"use a value of type {type(default).__name__}, such as {default!r}"
    elif not rule.holds(value):
        wrong = [name for name in names_in(str(value)) if name not in rule.choices]
        remedy = rule.remedy + did_you_mean(wrong[0] if wrong else "", rule.choices)
    else:
        return value
    raise ValueError(f"{field} is {value!r}; {remedy}")


def valid_field(config: ConfigDict, field: str) -> Any:
    """The value of a dotted field, which may not be missing; raises as `valid_value`."""
    *section, name = field.split(".")
    values = config.get(section[0], {}) if section else config
    if name not in values:
        raise ValueError(f"{field} is missing from the config; see configs/permix.py")
    return valid_value(field, values[name])


def section_with(section: str, **changes: Any) -> ConfigDict:
    """A section alone: its defaults with changes, such as `section_with("data", train="my.jsonl")`.

    Raises ValueError, one line, for a field that is not there or a value that it may not have.
    """
    values = {name: field.default for name, field in SECTIONS[section].fields.items()}
    for name, value in changes.items():
        if name not in values:
            near = did_you_mean(name, values)
            raise ValueError(f"{section}.{name}: there is no such field{near}")
        values[name] = valid_value(f"{section}.{name}", value)
    return ConfigDict(values).lock()


def call_with(function: Callable, *sections: Mapping[str, Any], **given: Any) -> Any:
    """`function(**given)`, a class, too, with the other arguments from the first section that has
    their name. An argument that no section has keeps its default."""
    found = ChainMap(*sections)
    others = inspect.signature(function).parameters.keys() - given.keys()
    return function(**given, **{name: found[name] for name in others if name in found})


def fixed_fields(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The config, or its section `prefix` ("model."), without the fields of CHANGEABLE and GONE."""
    return {
        name: fixed_fields(value, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in config.items()
        if prefix + name not in CHANGEABLE and prefix + name not in GONE
    }


def require_read(
    configs: Sequence[Mapping[str, Any]], changed: Sequence[str], command: str
) -> None:
    """Raises ValueError, in one line, for the first of the `changed` fields that nothing reads.

    One of the `configs`, which are made of the user's and resolved, has to read it. `command` is
    that of launch/, without ".py".
    """
    resolved = [flat_fields(config) | {"command": command} for config in configs]
    for field in changed:
        lacking = [what_reading_takes(field, fields) for fields in resolved]
        if lacking and all(lacking):
            raise ValueError(
                f"{field} is {resolved[0][field]!r}, which nothing reads here: that takes "
                f"{lacking[0]}; set that too, or leave {field} out"
            )


def what_reading_takes(field: str, fields: Mapping[str, Any]) -> str:
    """What would have to hold for a field to be read in a config, flat; "" where it is read."""
    lacking = []
    for name in (field.partition(".")[0], field):
        conditions = READ_WHERE.get(name, ())
        if not any(field in each for each in conditions):
            missing = [in_words(each, fields) for each in conditions]
            if missing and all(missing):
                lacking.append(", or ".join(missing))
    return " and ".join(lacking)


def in_words(condition: Condition, fields: Mapping[str, Any] | None = None) -> str:
    """Such as "task.name = 'problems' and a sft.steps other than 0".

    With the flat `fields` of a config, only the parts that do not hold there.
    """
    parts = []
    for name, wanted in condition.items():
        values = wanted if isinstance(wanted, tuple) else (wanted,)  # an OtherThan is a tuple, too
        refused = isinstance(wanted, OtherThan)
        if fields is not None and (fields.get(name) in values) != refused:
            continue
        if name == "command":
            parts.append(f"launch/{wanted}.py")
        elif refused:
            parts.append(f"{'an' if name[0] in 'aeiou' else 'a'} {name} other than {values[0]!r}")
        else:
            instead = "" if fields is None else f" instead of {fields.get(name)!r}"
            parts.append(f"{name} = {' or '.join(map(repr, values))}{instead}")
    return " and ".join(parts)
