"""A stand-in for a Consul agent: the part of its HTTP API that Headrace uses, for a cluster on one machine.

`python -m headrace.local.registry --port PORT` serves it on loopback. It answers as Consul does, also where that is
inconvenient (a fresh index after a restart, a floor of one minute for automatic removal), so that the same client works
with both; one contract suite checks both. It keeps nothing on disk: services register again by themselves.
"""
