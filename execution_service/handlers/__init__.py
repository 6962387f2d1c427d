"""The built-in task types, one module each."""

BUILTIN_MODULES: tuple[str, ...] = (
    "execution_service.handlers.apply_filter",
    "execution_service.handlers.calculate_statistics",
    "execution_service.handlers.currency_conversion",
    "execution_service.handlers.find_patterns",
    "execution_service.handlers.image_resize",
    "execution_service.handlers.large_file_processing",
    "execution_service.handlers.sentiment_analysis",
    "execution_service.handlers.simulate_backup",
    "execution_service.handlers.text_summarization",
    "execution_service.handlers.weather_data",
    "execution_service.handlers.word_count",
)
