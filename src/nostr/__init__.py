"""The Nostr protocol: URLs, events, filters, messages, and the connection to one relay."""
