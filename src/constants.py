"""Numbers and names that several modules share. Times are in seconds unless named otherwise."""

from typing import Final

# Database: connections of one worker process, and of the initializer.
DB_POOL_MIN_SIZE_PER_WORKER: Final = 2
DB_POOL_MAX_SIZE_PER_WORKER: Final = 5
DB_COMMAND_TIMEOUT: Final = 60.0
SEED_BATCH_SIZE: Final = 1_000

# Health
HEALTH_CHECK_PORT: Final = 8080
READY_CHECK_TIMEOUT: Final = 5.0

# Time
SECONDS_PER_MINUTE: Final = 60
SECONDS_PER_HOUR: Final = 3_600
SECONDS_PER_DAY: Final = 86_400
# A service has 10 s to end after SIGTERM; what is left after this is for closing things.
SHUTDOWN_GRACE_SECONDS: Final = 8.0

# Relays: a whole relay may take this many times its request timeout in a probe.
RELAY_TIMEOUT_MULTIPLIER: Final = 2

# Synchronization: a window of this many seconds cannot be bisected further.
BINARY_SEARCH_MIN_RANGE: Final = 1

# Tor: addresses for trying a proxy by hand. No service depends on them.
TOR_CHECK_HTTP_URL: Final = "https://check.torproject.org/api/ip"
TOR_CHECK_WS_URL: Final = "wss://oxtrdevav64z64yb7x6rjg4ntzqjhedm5b5zjqulugknhzr46ny2qbad.onion"

# Logging: each message starts with one of these and a space.
LOG_ERROR: Final = "❌"
LOG_WARNING: Final = "⚠️"
LOG_SUCCESS: Final = "✅"
LOG_INFO: Final = "📦"
LOG_PROCESS: Final = "🔄"
LOG_WAIT: Final = "⏳"
LOG_START: Final = "🚀"
LOG_SEARCH: Final = "🔍"
LOG_NETWORK: Final = "🌐"
LOG_TIMER: Final = "⏰"

LOG_EMOJIS: Final = (
    LOG_ERROR,
    LOG_WARNING,
    LOG_SUCCESS,
    LOG_INFO,
    LOG_PROCESS,
    LOG_WAIT,
    LOG_START,
    LOG_SEARCH,
    LOG_NETWORK,
    LOG_TIMER,
)
