"""The gRPC face of management."""
