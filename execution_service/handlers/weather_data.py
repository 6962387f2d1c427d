"""Task type `weather_data`: the weather at a place, now and on the coming days, from Open-Meteo.

A place given by its name is looked up first; of several places of that name the one that Open-Meteo ranks first is
taken, and `place` in the result says which one that is. All times have the place's offset from UTC. A value that the
weather models do not have is null. Conditions are the codes of WMO 4677 that Open-Meteo uses, and what they mean.

Weather data by Open-Meteo.com under CC BY 4.0, places by GeoNames.
"""

import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from execution_service.handlers.absent import Absent, without_default
from execution_service.handlers.schema import HandlerModel
from execution_service.handlers.settings import handler_settings
from execution_service.handlers.web import open_meteo
from execution_service.handlers.web.failures import WEB_ERRORS
from execution_service.handlers.web.open_meteo import DAYS_MAX, Forecast, FoundPlace, FoundPlaces, condition
from execution_service.handlers.web.urls import with_query
from headrace.tasks import ErrorKind, Limits, PermanentError, TaskContext, task

# Names are unique to no country: with one, so many places are looked through for it.
_PLACES_MAX = 20
_WAYS = ({"place"}, {"place", "country"}, {"latitude", "longitude"})


Code = Annotated[int | None, Field(description="The WMO code of the weather; of a day, the worst.", examples=[3])]
Condition = Annotated[str | None, Field(description="What the code means.", examples=["overcast"])]


class UnitSystem(StrEnum):
    METRIC = "metric"
    IMPERIAL = "imperial"


class WeatherData(HandlerModel):
    # Says in the schema what the validator checks, so that a client hears of it when it submits.
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["place"], "properties": {"latitude": False, "longitude": False}},
                {"required": ["latitude", "longitude"], "properties": {"place": False, "country": False}},
            ]
        }
    )

    place: Annotated[str, Field(min_length=2, max_length=100, pattern=r"^\S.*\S$")] | Absent = Field(
        default=None,
        description="The name of a place, or a postal code.",
        examples=["Reykjavík"],
        json_schema_extra=without_default,
    )
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")] | Absent = Field(
        default=None,
        description="The country of the place, as two letters of ISO 3166-1.",
        examples=["IS"],
        json_schema_extra=without_default,
    )
    latitude: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)] | Absent = Field(
        default=None,
        description="In place of a name: degrees north.",
        examples=[64.13548],
        json_schema_extra=without_default,
    )
    longitude: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)] | Absent = Field(
        default=None,
        description="With the latitude: degrees east.",
        examples=[-21.89541],
        json_schema_extra=without_default,
    )
    days: int = Field(default=3, ge=1, le=DAYS_MAX, description="How many days, with today.", examples=[2])
    hourly: bool = Field(default=False, description="Whether to forecast each hour as well.", examples=[True])
    units: UnitSystem = Field(default=UnitSystem.METRIC, description="The units of all values.", examples=["imperial"])

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = {name for name in ("place", "country", "latitude", "longitude") if getattr(self, name) is not None}
        if given not in _WAYS:
            raise ValueError("either a place, with or without its country, or latitude and longitude are needed")
        return self


class Place(HandlerModel):
    name: str | None = Field(description="Null for coordinates.", examples=["Reykjavík"])
    region: str | None = Field(description="The part of the country, where known.", examples=["Capital Region"])
    country: str | None = Field(examples=["Iceland"])
    country_code: str | None = Field(description="Two letters of ISO 3166-1.", examples=["IS"])
    latitude: float = Field(description="Degrees north, as asked for or found.", examples=[64.13548])
    longitude: float = Field(description="Degrees east, as asked for or found.", examples=[-21.89541])
    elevation: float | None = Field(description="Metres above the sea.", examples=[37.0])
    timezone: str = Field(description="As in the IANA time zone database.", examples=["Atlantic/Reykjavik"])


class WeatherUnits(HandlerModel):
    temperature: str = Field(examples=["°C"])
    precipitation: str = Field(examples=["mm"])
    wind_speed: str = Field(examples=["km/h"])


class CurrentWeather(HandlerModel):
    time: datetime.datetime = Field(description="When, to a quarter of an hour.", examples=["2025-04-04T13:45:00Z"])
    code: Code
    condition: Condition
    temperature: float | None = Field(examples=[7.7])
    apparent_temperature: float | None = Field(description="What it feels like.", examples=[5.9])
    humidity: float | None = Field(description="Relative, in percent.", examples=[71])
    precipitation: float | None = Field(description="In the quarter of an hour before.", examples=[0.2])
    cloud_cover: float | None = Field(description="In percent of the sky.", examples=[96])
    wind_speed: float | None = Field(examples=[16.7])
    wind_direction: float | None = Field(description="Where it comes from, in degrees.", examples=[237])
    wind_gusts: float | None = Field(examples=[31.8])
    is_day: bool | None = Field(description="Whether the sun is up.", examples=[True])


class DayForecast(HandlerModel):
    date: datetime.date = Field(examples=["2025-04-04"])
    code: Code
    condition: Condition
    temperature_min: float | None = Field(examples=[0.6])
    temperature_max: float | None = Field(examples=[8.2])
    precipitation: float | None = Field(description="The sum of the day.", examples=[1.4])
    precipitation_probability: float | None = Field(description="The highest of the day, in percent.", examples=[45])
    wind_speed_max: float | None = Field(examples=[17.0])
    sunrise: datetime.datetime | None = Field(examples=["2025-04-04T06:41:00Z"])
    sunset: datetime.datetime | None = Field(examples=["2025-04-04T20:22:00Z"])


class HourForecast(HandlerModel):
    time: datetime.datetime = Field(examples=["2025-04-04T14:00:00Z"])
    code: Code
    condition: Condition
    temperature: float | None = Field(examples=[7.9])
    precipitation: float | None = Field(description="In the hour before.", examples=[0.1])
    precipitation_probability: float | None = Field(description="In percent.", examples=[30])
    wind_speed: float | None = Field(examples=[16.9])


class WeatherResult(HandlerModel):
    place: Place
    units: WeatherUnits = Field(description="The units of all values below.")
    current: CurrentWeather
    daily: list[DayForecast] = Field(max_length=DAYS_MAX, description="The days from today on.")
    hourly: list[HourForecast] | None = Field(
        max_length=DAYS_MAX * 24, description="The hours of these days; null unless asked for."
    )


_EXAMPLES = (
    {"place": "Reykjavík", "days": 1},
    {"place": "Berlin", "country": "US", "units": "imperial"},
    {"latitude": -1.28333, "longitude": 36.81667, "days": 2, "hourly": True},
)
_ERRORS = (ErrorKind("place_not_found", False, "Open-Meteo knows no such place, or none in that country."), *WEB_ERRORS)


@task(
    "weather_data",
    timeout=30,
    max_attempts=5,
    examples=_EXAMPLES,
    limits=Limits(memory_mib=512),
    errors=_ERRORS,
)
async def weather_data(data: WeatherData, context: TaskContext) -> WeatherResult:
    """Tell the weather at a place: now, and the forecast of the coming days, from Open-Meteo."""
    from execution_service.handlers.web.client import web_client  # with the HTTP library: 15 MiB, 0.2 s

    client = await web_client()
    if data.latitude is not None and data.longitude is not None:
        place = FoundPlace(latitude=data.latitude, longitude=data.longitude)
    else:
        url = with_query(handler_settings().geocoding_url, query=place_query(data))
        place = choose(await client.get(url, FoundPlaces, deadline=context.deadline), data)
    url = with_query(handler_settings().weather_url, query=forecast_query(data, place))
    forecast = await client.get(url, Forecast, deadline=context.deadline)
    return WeatherResult(
        place=_place(place, forecast),
        units=WeatherUnits(
            temperature=forecast.current_units.temperature_2m,
            precipitation=forecast.current_units.precipitation,
            wind_speed=forecast.current_units.wind_speed_10m,
        ),
        current=_current(forecast),
        daily=[_day(day, forecast) for day in forecast.daily[: data.days]],
        hourly=[_hour(hour, forecast) for hour in forecast.hourly[: data.days * 24]] if data.hourly else None,
    )


def place_query(data: WeatherData) -> dict[str, str | int]:
    """Return the parameters of the search for a place."""
    query: dict[str, str | int] = {"name": data.place or "", "count": 1, "language": "en", "format": "json"}
    return query if data.country is None else query | {"count": _PLACES_MAX, "countryCode": data.country}


def choose(found: FoundPlaces, data: WeatherData) -> FoundPlace:
    """Return the best place that was found. Raises PermanentError `place_not_found`."""
    # Servers of one's own may be too old to look for a country themselves.
    for place in found.results:
        if data.country in (None, place.country_code):
            return place
    where = f" in {data.country}" if data.country else ""
    raise PermanentError("place_not_found", f"Open-Meteo knows no place {data.place!r}{where}.")


def forecast_query(data: WeatherData, place: FoundPlace) -> dict[str, str | int]:
    """Return the parameters of the request for a forecast."""
    return {
        # Five decimals are a metre, and never an exponent.
        "latitude": f"{place.latitude:.5f}",
        "longitude": f"{place.longitude:.5f}",
        "current": open_meteo.CURRENT,
        "daily": open_meteo.DAILY,
        **({"hourly": open_meteo.HOURLY} if data.hourly else {}),
        "forecast_days": data.days,
        "timezone": "auto",
        **open_meteo.UNITS[data.units],
    }


def _place(place: FoundPlace, forecast: Forecast) -> Place:
    return Place(
        name=place.name,
        region=place.admin1,
        country=place.country,
        country_code=place.country_code,
        latitude=place.latitude,
        longitude=place.longitude,
        elevation=forecast.elevation,
        timezone=forecast.timezone,
    )


def _current(forecast: Forecast) -> CurrentWeather:
    now = forecast.current
    return CurrentWeather(
        time=forecast.local(now.time),
        code=now.weather_code,
        condition=condition(now.weather_code),
        temperature=now.temperature_2m,
        apparent_temperature=now.apparent_temperature,
        humidity=now.relative_humidity_2m,
        precipitation=now.precipitation,
        cloud_cover=now.cloud_cover,
        wind_speed=now.wind_speed_10m,
        wind_direction=now.wind_direction_10m,
        wind_gusts=now.wind_gusts_10m,
        is_day=now.is_day,
    )


def _day(day: open_meteo.Day, forecast: Forecast) -> DayForecast:
    return DayForecast(
        date=day.time,
        code=day.weather_code,
        condition=condition(day.weather_code),
        temperature_min=day.temperature_2m_min,
        temperature_max=day.temperature_2m_max,
        precipitation=day.precipitation_sum,
        precipitation_probability=day.precipitation_probability_max,
        wind_speed_max=day.wind_speed_10m_max,
        sunrise=day.sunrise and forecast.local(day.sunrise),
        sunset=day.sunset and forecast.local(day.sunset),
    )


def _hour(hour: open_meteo.Hour, forecast: Forecast) -> HourForecast:
    return HourForecast(
        time=forecast.local(hour.time),
        code=hour.weather_code,
        condition=condition(hour.weather_code),
        temperature=hour.temperature_2m,
        precipitation=hour.precipitation,
        precipitation_probability=hour.precipitation_probability,
        wind_speed=hour.wind_speed_10m,
    )
