"""Socket.IO: the live streams for clients that speak it, in browsers above all."""
