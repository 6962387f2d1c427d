"""How handlers ask APIs on the web: one bounded, careful client, and what the APIs answer.

Users give no URLs: what is called is configured. The client still trusts neither names nor answers. It connects only
to an address that it has looked up and judged itself, follows few redirects and judges each of them again, and takes
in a bounded answer within a bounded time. Whatever goes wrong gets a code from one table, in `failures.py`.
"""
