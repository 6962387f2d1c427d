"""What Open-Meteo answers: places found by name (its geocoding API), and the weather at a place (its forecast API).

https://open-meteo.com/en/docs/geocoding-api and https://open-meteo.com/en/docs. Columns of values, with the times in
one of them, are turned into rows here. Times are local ones, all with the one offset that the answer names.
"""

import datetime
from datetime import timedelta, timezone
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, NaiveDatetime

DAYS_MAX = 16
ROWS_MAX = DAYS_MAX * 24

# The codes of WMO 4677 that Open-Meteo uses, as it documents them.
CONDITIONS = {
    0: "clear sky",
    1: "mainly clear",
    2: "partly cloudy",
    3: "overcast",
    45: "fog",
    48: "depositing rime fog",
    51: "light drizzle",
    53: "moderate drizzle",
    55: "dense drizzle",
    56: "light freezing drizzle",
    57: "dense freezing drizzle",
    61: "slight rain",
    63: "moderate rain",
    65: "heavy rain",
    66: "light freezing rain",
    67: "heavy freezing rain",
    71: "slight snowfall",
    73: "moderate snowfall",
    75: "heavy snowfall",
    77: "snow grains",
    80: "slight rain showers",
    81: "moderate rain showers",
    82: "violent rain showers",
    85: "slight snow showers",
    86: "heavy snow showers",
    95: "thunderstorm",
    96: "thunderstorm with slight hail",
    99: "thunderstorm with heavy hail",
}

CURRENT = (
    "temperature_2m,relative_humidity_2m,apparent_temperature,is_day,precipitation,weather_code,cloud_cover,"
    "wind_speed_10m,wind_direction_10m,wind_gusts_10m"
)
DAILY = (
    "weather_code,temperature_2m_max,temperature_2m_min,sunrise,sunset,precipitation_sum,"
    "precipitation_probability_max,wind_speed_10m_max"
)
HOURLY = "temperature_2m,precipitation_probability,precipitation,weather_code,wind_speed_10m"
UNITS = {
    "metric": {"temperature_unit": "celsius", "wind_speed_unit": "kmh", "precipitation_unit": "mm"},
    "imperial": {"temperature_unit": "fahrenheit", "wind_speed_unit": "mph", "precipitation_unit": "inch"},
}


def _printable(text: str) -> str:
    # Also what could not be stored in a result: NUL and lone surrogates.
    if not text.isprintable():
        raise ValueError("there is a character in the text that cannot be shown")
    return text


def _rows(columns: Any) -> Any:
    if not isinstance(columns, dict) or not all(isinstance(column, list) for column in columns.values()):
        raise ValueError("columns of values are expected")
    if max(map(len, columns.values()), default=0) > ROWS_MAX:
        raise ValueError(f"at most {ROWS_MAX} values are expected")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


Text = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Value = Annotated[float, Field(ge=-1e6, le=1e6)] | None


class Answer(BaseModel):
    """A part of an answer. What is not asked for is left out; a number may be missing (null), but never infinite."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class FoundPlace(Answer):
    name: Text | None = None
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    country: Text | None = None
    country_code: Text | None = None
    admin1: Text | None = None


class FoundPlaces(Answer):
    # Left out when nothing is found.
    results: list[FoundPlace] = Field(default=[], max_length=100)


class Units(Answer):
    temperature_2m: Text
    precipitation: Text
    wind_speed_10m: Text


class Current(Answer):
    time: NaiveDatetime
    temperature_2m: Value
    relative_humidity_2m: Value
    apparent_temperature: Value
    is_day: bool | None
    precipitation: Value
    weather_code: int | None
    cloud_cover: Value
    wind_speed_10m: Value
    wind_direction_10m: Value
    wind_gusts_10m: Value


class Day(Answer):
    time: datetime.date
    weather_code: int | None
    temperature_2m_max: Value
    temperature_2m_min: Value
    sunrise: NaiveDatetime | None
    sunset: NaiveDatetime | None
    precipitation_sum: Value
    precipitation_probability_max: Value
    wind_speed_10m_max: Value


class Hour(Answer):
    time: NaiveDatetime
    temperature_2m: Value
    precipitation_probability: Value
    precipitation: Value
    weather_code: int | None
    wind_speed_10m: Value


class Forecast(Answer):
    latitude: float
    longitude: float
    elevation: Value = None
    timezone: Text
    utc_offset_seconds: int = Field(ge=-14 * 3600, le=14 * 3600)
    current_units: Units
    current: Current
    daily: Annotated[list[Day], BeforeValidator(_rows)]
    hourly: Annotated[list[Hour], BeforeValidator(_rows)] = []

    def local(self, time: datetime.datetime) -> datetime.datetime:
        """Return a time of the answer with its offset."""
        return time.replace(tzinfo=timezone(timedelta(seconds=self.utc_offset_seconds)))


def condition(code: int | None) -> str | None:
    """Return what a weather code means."""
    return None if code is None else CONDITIONS.get(code, "unknown")
