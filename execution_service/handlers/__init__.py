"""The built-in task types, one module each."""

BUILTIN_MODULES: tuple[str, ...] = (
    "execution_service.handlers.calculate_statistics",
    "execution_service.handlers.image_resize",
    "execution_service.handlers.simulate_backup",
    "execution_service.handlers.word_count",
)
