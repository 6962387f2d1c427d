"""What the fault tests stand on.

- `stack.Stack`: a whole cluster of real processes, each started, frozen, killed and restarted by name, every link
  between them through a proxy of its own.
- `proxy.Proxy`: one TCP link that can be delayed, cut, frozen, or robbed of its replies.
- `client.Client`: calls the API as a user does and writes down what it was promised (`ledger`).
- `evidence.Evidence`: all that can be read after a run: both databases, Redis, side effects, events.
- `checker.check`: the invariants I1 to I12 over a ledger and its evidence.
"""
