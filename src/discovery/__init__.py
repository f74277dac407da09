"""Finding relays: the URLs that events and HTTP aggregators name, untrusted as they are."""
