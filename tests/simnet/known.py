"""Cases that failed once. They are run with every simulated network."""

KNOWN = (
    # A relay that sends EOSE in the middle of its events: those after it were not kept.
    "SEED=116/3 faults=since-exclusive,eose-in-the-middle,negentropy",
    # Its neighbours' refused events filled the page of every second.
    "SEED=72/4 faults=oldest-first,holds-junk,closed-error-once,auth-first",
    # Two faults said how to refuse; the bed let one of them undo the other.
    "SEED=234/0 faults=notice-for-closed,one-subscription",
    "SEED=30/4 faults=oldest-first,holds-junk events=347-350,385-387,408-425 cap=20",
    # Sets cut to more than a page shows passed for whole.
    "SEED=355/2 faults=cap-small,burst-of-kinds,hint-right,extra-keys,negentropy-cuts",
    # What it was sending to one lane was thrown away when it refused another.
    "SEED=121/3 faults=repeats,closed-blocked-later,drops-mid-page,latency,negentropy-silent",
    # It broke off after each sign-in: that is no want of one.
    "SEED=83/3 faults=cap-large,random-ties,oversized-always,auth-in-the-middle,rate-of-requests",
    "SEED=140/3 faults=eose-late,hint-always-more,drops-always,auth-in-the-middle,limits-told",
    # Events sent unasked made refined pages look unordered, and everything was proven anew.
    "SEED=72/2 faults=eose-in-the-middle,outside-filter,closed-rate-limited-twice",
    # Nothing can be read of these, and what else is wrong with them does not matter.
    "SEED=89/2 faults=cap-random,random-ties,drops-always,rate-of-events,publishes",
    "SEED=108/2 faults=hint-lying-finish,oversized-always,few-subscriptions",
    "SEED=136/3 faults=cap-small,burst-of-kinds,hint-lying-finish,notice-for-closed,"
    "auth-in-the-middle",
    # Frames that cannot be read, of many pages, counted for one: others looked whole beside it.
    "SEED=93/4 faults=hint-always-more,holds-junk,garbage-frames,no-deflate",
)
