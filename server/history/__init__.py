"""What happened: append-only events, written with the change they tell of, and who hears of them.

events.py        writes events (`record`); order.py says in which order they are read, and when
selection.py     which events a request asks for; export.py and follow.py: as a file, as they happen
runs.py          which weights ran where and when; lineage.py: where they came from
retention.py     what is forgotten
webhooks.py      who hears of events; targets.py: at which addresses; signing.py: how they know us
outbox.py        from events to deliveries; courier.py sends them
*_routes.py      the HTTP side; *schemas.py says what it takes and gives
"""
