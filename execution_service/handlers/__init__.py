"""The built-in task types, one module each."""

BUILTIN_MODULES: tuple[str, ...] = ()
