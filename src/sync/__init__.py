"""Synchronization: what to ask of a relay, what its answers prove, and the ledger of proofs.

`windows`, `facts`, `walk`, `bisection`, `partition` and `relay_model` are pure. `page_check`,
`ledger`, `writer`, `session` and `service` are the shells around them.
"""
