"""Every error that visavis raises on purpose.

::

    VisavisError
    ├── InputError (ValueError)          what was given is wrong: correct it and call again
    │   ├── SchemaError                  a column, key or type is missing, unknown or wrong
    │   ├── RuleError                    a rule does not parse or does not fit the attributes
    │   ├── ReusedError                  a request id that stands for something else already
    │   └── LimitError                   a valid request that is larger than the stated bound
    ├── NotFoundError (LookupError)      an id that the base or the catalog does not hold
    └── SetupError (RuntimeError)        the machine or the installation lacks something
        ├── VariantError                 a kernel variant that this processor cannot run
        ├── ExtraError                   an optional dependency that is not installed
        ├── StorageError                 a file that could not be read or written
        ├── UnreachableError             workers that do not answer now, and may later
        └── CorruptionError              stored bytes do not fit their digest

``InputError`` names the *field* and, where there is one, the *row* (0-based, in the order of the
input), so that the offending cell can be found without a search.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "CorruptionError",
    "ExtraError",
    "InputError",
    "LimitError",
    "NotFoundError",
    "ReusedError",
    "RuleError",
    "SchemaError",
    "SetupError",
    "StorageError",
    "UnreachableError",
    "VariantError",
    "VisavisError",
    "fields_below",
]


class VisavisError(Exception):
    """The root of every error that visavis raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # Errors come back from other processes; pickle would call __init__ with the text alone.
        return _restored, (type(self), self.args, vars(self))


def _restored(
    kind: type[VisavisError], args: tuple[object, ...], attributes: dict[str, object]
) -> VisavisError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class InputError(VisavisError, ValueError):
    """What was given is wrong.

    Parameters
    ----------
    reason : str
        What is wrong, as a clause: ``"must be finite, got nan"``.
    field : str, optional
        The column, key or argument at fault.
    row : int, optional
        The 0-based row of the input at fault.
    subject : str, optional
        The id that the row stands for, when it has one (``"capability 'tea-email'"``).
    """

    def __init__(
        self,
        reason: str,
        *,
        field: str | None = None,
        row: int | None = None,
        subject: str | None = None,
    ) -> None:
        self.reason = reason
        self.field = field
        self.row = row
        self.subject = subject
        where = [
            part
            for part in (
                field,
                None if row is None else f"row {row}",
                subject,
            )
            if part is not None
        ]
        super().__init__(f"{', '.join(where)}: {reason}" if where else reason)


@contextmanager
def fields_below(prefix: str) -> Iterator[None]:
    """Name what is wrong in the block by its path below `prefix`: doors do not know it."""
    try:
        yield
    except InputError as error:
        if error.field is None:
            raise
        field = f"{prefix}.{error.field}"
        kind = type(error)
        raise kind(error.reason, field=field, row=error.row, subject=error.subject) from None


class SchemaError(InputError):
    """A column, key or type is missing, unknown or wrong."""


class LimitError(InputError):
    """The request is valid but larger than the bound that keeps memory flat."""


class ReusedError(InputError):
    """A request id was used before, for something else."""


class RuleError(InputError):
    """A rule does not parse or does not fit the attributes.

    Parameters
    ----------
    reason : str
        What is wrong, as a clause.
    rule : str
        The whole text of the rule.
    position : int, optional
        0-based offset of the offending character in `rule`.
    column : str, optional
        The attribute that the offending part names.
    capability : str, optional
        The capability that carries the rule.
    """

    def __init__(
        self,
        reason: str,
        *,
        rule: str,
        position: int | None = None,
        column: str | None = None,
        capability: str | None = None,
    ) -> None:
        self.rule = rule
        self.position = position
        self.column = column
        self.capability = capability
        at = "" if position is None else f" at position {position}"
        named = "" if column is None else f" (attribute {column!r})"
        super().__init__(
            f"{reason}{named}{at} in {rule!r}",
            field="rule",
            subject=None if capability is None else f"capability {capability!r}",
        )


class NotFoundError(VisavisError, LookupError):
    """An id that the base or the catalog does not hold."""


class SetupError(VisavisError, RuntimeError):
    """The machine or the installation lacks something."""


class VariantError(SetupError):
    """A kernel variant that was asked for cannot run on this processor."""


class ExtraError(SetupError):
    """An optional dependency is not installed.

    Parameters
    ----------
    package : str
        The package that could not be imported.
    extra : str
        The extra of visavis that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{package} is not installed: pip install 'visavis[{extra}]'")


class StorageError(SetupError):
    """A file or folder could not be read or written.

    Parameters
    ----------
    reason : str
        What went wrong, as a clause: ``"cannot be written: No space left on device"``.
    path : object
        The file or folder; its text is kept.
    """

    def __init__(self, reason: str, *, path: object = None) -> None:
        self.reason = reason
        self.path = None if path is None else str(path)
        super().__init__(reason if path is None else f"{path} {reason}")


class UnreachableError(SetupError):
    """Workers do not answer now: the same may be asked again."""


class CorruptionError(SetupError):
    """Stored bytes do not fit their digest."""
