"""Synchronization: what to ask of a relay, what its answers prove, and the ledger of proofs.

Pure: `windows`, `facts`, `walk`, `bisection`, `partition`, `response`, `relay_model`, `limits`,
`verification`. Shells, from the inside out: `page_check`, `ledger`, `writer`, `asker`, `driver`,
`session` (one relay), `task` (in a worker), `dispatch` and `service` (the main process).
"""
