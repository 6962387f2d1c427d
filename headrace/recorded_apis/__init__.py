"""A stand-in for the public APIs that task types ask, for demos, docs and tests without a network.

It answers on loopback in the form of Open-Meteo's geocoding and forecast APIs and of Frankfurter, errors included:

- a few places, from GeoNames;
- the reference rates of the European Central Bank of three days, as they were published;
- weather that is made up, the same for the same place on every run. It is 2025-04-04, a quarter to two, everywhere.

    with recorded_apis() as apis:
        os.environ.update(apis.environment)  # before a cluster is started
"""

from headrace.recorded_apis.server import RecordedApis, recorded_apis

__all__ = ["RecordedApis", "recorded_apis"]
