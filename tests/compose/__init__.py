"""The stack of docker-compose.yml for real: built, started, harmed, scaled and rolled. Needs a Docker engine."""
