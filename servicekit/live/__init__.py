"""Live streams of task updates: who wants what, in which order it is told, and what becomes of slow readers.

The gateway (all tasks) and every execution replica (its own) serve them with this one implementation. A `LiveSource`
brings the updates in order; the `Hub` hands each to those who want it; a `LiveSession` tells one reader a snapshot and
then what follows. Transports (WebSocket, server-sent events, Socket.IO) only encode what a session says.
"""
