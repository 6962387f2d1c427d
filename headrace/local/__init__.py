"""A whole cluster on one machine: real servers, all services, and the process that keeps them running."""
