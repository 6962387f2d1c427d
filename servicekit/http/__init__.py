"""What every HTTP server of ours stands on: connections with bounds, and errors as problem+json."""
